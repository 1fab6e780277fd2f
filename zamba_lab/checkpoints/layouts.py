"""Every layout a model of the family was ever stored in, one table of names each (`binding.py` explains the notation).

ZAMBA2, ZAMBA1                  what the hub's files and transformers >= 4.49 use; what `save` writes where it can
ZAMBA2_LEGACY, ZAMBA1_LEGACY    the older files of the authors' fork
ZAMBA2_PLAIN                    the single file of the authors' plain-PyTorch code
MAMBA1, MAMBA2                  pure Mamba, as the original code and as transformers spell it
NATIVE                          our own names: variants that none of the above can hold
"""

from collections.abc import Iterable

from zamba_lab.checkpoints.binding import CONV, INTERLEAVED, ONE_HEAD, QKV_BY_HEAD, STACKED, Layout
from zamba_lab.checkpoints.errors import CheckpointError


# --- pieces that several layouts share ----------------------------------------------------------------------------
def _same(names: str) -> tuple[tuple[str, str], ...]:
    """Rows of a mixer's tensors that are called alike."""
    return tuple((f"layers.{{i}}.mamba.{name}", f"{{mixer}}.{name}") for name in names.split())


_CONV = (("layers.{i}.mamba.conv_weight", "{mixer}.conv1d.weight", CONV), ("layers.{i}.mamba.conv_bias", "{mixer}.conv1d.bias"))
_IN_PROJ, _OUT_PROJ = _same("in_proj.weight in_proj.bias"), _same("out_proj.weight out_proj.bias")
# An early revision wrapped the projection in a list of one.
_IN_PROJ_LISTED = tuple((ours, f"{stored.replace('in_proj', 'in_proj.0')} | {stored}") for ours, stored in _IN_PROJ)
_MAMBA2_MIXER = (*_CONV, *_same("dt_bias A_log D"), ("layers.{i}.mamba.norm_weight", "{mixer}.norm.weight"), *_OUT_PROJ)
_ZAMBA1_MIXER = (
    *((*row, INTERLEAVED) for row in _IN_PROJ),
    *_CONV,
    ("layers.{i}.mamba.x_proj", "{mixer}.x_proj_weight"),
    ("layers.{i}.mamba.dt_proj", "{mixer}.dt_proj_weight"),
    ("layers.{i}.mamba.dt_bias", "{mixer}.dt_proj_bias"),
    *_same("A_log D"),
    *_OUT_PROJ,
)
_ENDS = (
    ("embedding.weight", "model.embed_tokens.weight | lm_head.weight"),  # some files hold a tied head as well
    ("head.weight", "lm_head.weight"),
    ("final_norm.weight", "model.final_layernorm.weight"),
    ("layers.{i}.norm.weight", "{home}.input_layernorm.weight"),
)
_ATTENTION = (
    ("shared_blocks.{b}.norm_in.weight", "{block}.input_layernorm.weight"),
    *((f"shared_blocks.{{b}}.attention.{x}.weight", f"{{block}}.self_attn.{x}_proj.weight") for x in "qkvo"),
    ("shared_blocks.{b}.norm_mid.weight", "{block}.pre_ff_layernorm.weight"),
)
_MLP_APART = (
    ("shared_blocks.{b}.mlp.gate_up.weight", ("{block}.feed_forward.gate_proj.weight", "{block}.feed_forward.up_proj.weight"), STACKED),
    ("shared_blocks.{b}.mlp.down.weight", "{block}.feed_forward.down_proj.weight"),
)
_ADAPTERS = tuple(f"layers.{{i}}.invocation.adapters.{name}.{part}.weight" for name in ("mlp", "q", "k", "v") for part in ("down", "up"))


def _mlp(up: str, down: str) -> tuple[tuple[str, str], ...]:
    """The fused gate and up projection and the one back, weight and bias."""
    return tuple(
        (f"shared_blocks.{{b}}.mlp.{ours}.{kind}", f"{{block}}.{stored}.{kind}")
        for ours, stored in (("gate_up", up), ("down", down))
        for kind in ("weight", "bias")
    )


def _adapters(mlp: str, qkv: str, parts: tuple[str, str]) -> tuple[tuple[str, str], ...]:
    """{part} is how the layout says "down" and "up", {x} the projection adapted."""
    stored = {"mlp": mlp, **{x: qkv.replace("{x}", x) for x in "qkv"}}
    return tuple(
        (f"layers.{{i}}.invocation.adapters.{name}.{ours}.weight", "{block}." + stored[name].replace("{part}", part))
        for name in stored
        for ours, part in zip(("down", "up"), parts)
    )


# --- the layouts --------------------------------------------------------------------------------------------------
_TODAY = dict(home="model.layers.{i}", hybrid_home="model.layers.{i}.mamba_decoder", mixer="mamba")
_LEGACY = dict(home="model.mamba_layers.{i}", mixer="mamba")
_LINK = "layers.{i}.invocation.link.weight"
_ZAMBA1 = (*_ENDS, *_ZAMBA1_MIXER, *_ATTENTION, *_MLP_APART)

ZAMBA2 = Layout(
    "zamba2",
    block="model.layers.{i}.shared_transformer",
    rows=(
        *_ENDS,
        *_IN_PROJ,
        *_MAMBA2_MIXER,
        *_ATTENTION,
        *_mlp("feed_forward.gate_up_proj", "feed_forward.down_proj"),
        (_LINK, "model.layers.{i}.linear.weight"),
        *_adapters(
            "feed_forward.gate_up_proj_adapter_list.{k}.{part}.weight", "self_attn.linear_{x}_adapter_list.{k}.{part}.weight", ("0", "1")
        ),
    ),
    **_TODAY,
)
ZAMBA1 = Layout("zamba", block="model.layers.{i}.shared_transf", rows=(*_ZAMBA1, (_LINK, "model.layers.{i}.linear.weight")), **_TODAY)
ZAMBA1_LEGACY = Layout("zamba legacy", block="model.block", rows=(*_ZAMBA1, (_LINK, "model.linear_layers.{k}.weight")), **_LEGACY)
ZAMBA2_LEGACY = Layout(
    "zamba2 legacy",
    block="model.blocks.{b}",
    spares=_ADAPTERS,
    rows=(
        *_ENDS,
        *_IN_PROJ_LISTED,
        *_MAMBA2_MIXER,
        *_ATTENTION,
        *_mlp("feed_forward.linear_fc1", "feed_forward.linear_fc2"),
        (_LINK, "model.linear_layers.{k}.weight"),
        *_adapters("feed_forward.linear_fc1_lora_{part}_list.{k}.weight", "self_attn.linear_{x}_lora_{part}_list.{k}.weight", ("A", "B")),
    ),
    **_LEGACY,
)
ZAMBA2_PLAIN = Layout(
    "zamba2 plain PyTorch",
    home="decoder.layers.{i}",
    mixer="mixer",
    block="decoder.blocks.{b}",
    spares=_ADAPTERS,
    rows=(
        ("embedding.weight", "embedding.weight"),
        ("final_norm.weight", "decoder.final_layernorm.weight"),
        ("layers.{i}.norm.weight", "{home}.norm.weight"),
        *_IN_PROJ_LISTED,
        *_MAMBA2_MIXER,
        ("shared_blocks.{b}.norm_in.weight", "{block}.sa.norm.weight"),
        (tuple(f"shared_blocks.{{b}}.attention.{x}.weight" for x in "qkv"), "{block}.sa.mixer.linear_qkv.weight", QKV_BY_HEAD),
        ("shared_blocks.{b}.attention.o.weight", "{block}.sa.mixer.linear_proj.weight"),
        ("shared_blocks.{b}.norm_mid.weight", "{block}.mlp.norm.weight"),
        *_mlp("mlp.mixer.linear_fc1", "mlp.mixer.linear_fc2"),
        (_LINK, "decoder.block_map.{i}.weight"),
        *_adapters("mlp.mixer.linear_fc1_lora_{part}_list.{k}.weight", "sa.mixer.linear_{x}_lora_{part}_list.{k}.weight", ("A", "B")),
    ),
)

_PURE_ENDS = (
    ("embedding.weight", "backbone.embeddings.weight | backbone.embedding.weight | lm_head.weight"),
    ("head.weight", "lm_head.weight"),
    ("final_norm.weight", "backbone.norm_f.weight"),
    ("layers.{i}.norm.weight", "{home}.norm.weight"),
)
MAMBA2 = Layout("mamba2", home="backbone.layers.{i}", mixer="mixer", rows=(*_PURE_ENDS, *_IN_PROJ, *_MAMBA2_MIXER))
MAMBA1 = Layout(
    "mamba",
    home="backbone.layers.{i}",
    mixer="mixer",
    rows=(
        *_PURE_ENDS,
        *_IN_PROJ,
        *_CONV,
        ("layers.{i}.mamba.x_proj", "{mixer}.x_proj.weight", ONE_HEAD),
        ("layers.{i}.mamba.dt_proj", "{mixer}.dt_proj.weight", ONE_HEAD),
        ("layers.{i}.mamba.dt_bias", "{mixer}.dt_proj.bias", ONE_HEAD),
        *((*row, ONE_HEAD) for row in _same("A_log D")),
        *_OUT_PROJ,
    ),
)

_OURS = {row[0] for layout in (ZAMBA2, ZAMBA1) for row in layout.rows}
_BLOCK = [f"{name}.weight" for name in ("norm_in", "norm_mid", "mlp.gate_up", "mlp.down", *(f"attention.{x}" for x in "qkvo"))]
_TRANSFORMER = tuple(f"layers.{{i}}.{name}" for name in (*_BLOCK, "mlp.gate_up.bias", "mlp.down.bias"))
NATIVE = Layout("native", rows=tuple((name, name) for name in (*sorted(_OURS), *_TRANSFORMER)))

# What the files of a model_type may look like, with a piece of a name that only this layout has.
BY_MODEL_TYPE: dict[str, dict[str, Layout]] = {
    "zamba2": {"model.layers.": ZAMBA2, "model.mamba_layers.": ZAMBA2_LEGACY, "decoder.layers.": ZAMBA2_PLAIN},
    "zamba": {"model.layers.": ZAMBA1, "model.mamba_layers.": ZAMBA1_LEGACY},
    "mamba": {"backbone.layers.": MAMBA1},
    "mamba2": {"backbone.layers.": MAMBA2},
    "zamba_lab": {"layers.": NATIVE},
}


def choose(model_type: str, names: Iterable[str]) -> Layout:
    """The layout that the stored names show; the current one first, where files of two layouts lie side by side."""
    names, layouts = tuple(names), BY_MODEL_TYPE[model_type]
    for start, layout in layouts.items():
        if any(name.startswith(start) for name in names):
            return layout
    raise CheckpointError(
        f"model_type {model_type!r} is stored under names that start with {' or '.join(layouts)}: "
        f"none of the {len(names)} stored tensors does; the first are {sorted(names)[:5]}"
    )


def missing_prefix(model_type: str, names: Iterable[str]) -> str:
    """What the names of a model that was saved without its head lack at the front: "model." or the like; mostly empty."""
    names = tuple(names)
    for start in BY_MODEL_TYPE[model_type]:
        prefix, _, bare = start.partition(".")
        if bare and any(name.startswith(bare) for name in names) and not any(name.startswith(prefix) for name in names):
            return prefix + "."
    return ""
