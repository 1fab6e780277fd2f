"""A parsed config.json -> ZambaConfig, for every published format and our own. The tables are in `published.py`.

What a published format cannot say (how to initialise, how to chunk) is kept under one more key, "zamba_lab", which
other readers pass over; it may not change what the model computes, or they would compute something else.
"""

import math
from dataclasses import asdict, fields

from zamba_lab.checkpoints.errors import CheckpointError
from zamba_lab.checkpoints.json_values import brief, read_key
from zamba_lab.checkpoints.published import (
    ACTIVATIONS,
    EOS,
    FORMATS,
    HYBRID_LAYER,
    IGNORED,
    MAMBA_LAYER,
    ONLY,
    ORIGINAL,
    ORIGINAL_DEFAULTS,
    OWN,
    Format,
)
from zamba_lab.config import ZambaConfig

# fields that a ZambaConfig has and the mathematics of a forward pass does not
SILENT = ("init", "link_gain", "chunk_size", "max_context", "pad_token_id", "bos_token_id", "eos_token_id", "dt_min")


def read_config(raw: dict) -> ZambaConfig:
    """The config that a parsed config.json describes.

    Raises CheckpointError with the rule and the values: unknown keys, kinds that do not fit, keys that contradict each
    other, a model_type there is no code for.
    """
    raw = original_to_today(raw)
    model_type = read_key(raw, "model_type", "str", default="")
    if model_type == OWN:
        return _build(_own_fields({key: value for key, value in raw.items() if key != "model_type"}))
    if model_type not in FORMATS:
        raise CheckpointError(f"model_type must be one of {', '.join([*FORMATS, OWN])}: got {brief(model_type)}")
    raw = _today(raw, model_type, FORMATS[model_type])
    values = {name: read_key(raw, *key) for name, key in FORMATS[model_type].fields.items()}
    ends = raw.get("eos_token_id", EOS[model_type])
    # Several ends are the tokenizer's business; ours is the first.
    first = {"eos_token_id": ends[0] if isinstance(ends, list) and ends else ends}
    values["eos_token_id"] = read_key(first, "eos_token_id", "int | None", EOS[model_type])
    values["init"] = "authors"  # how these models began; a fresh one of the same config begins so too
    config = _build(values | READERS[model_type](raw, values))
    _check_derived(raw, config, model_type)
    own = _build({**asdict(config), **_own_fields(read_key(raw, OWN, "dict", default={}))})
    if changed := [name for name, value in meaning(own).items() if value != meaning(config)[name]]:
        raise CheckpointError(f"config.json: {OWN!r} may only hold what the other keys cannot say, but changes {changed}")
    return own


def meaning(config: ZambaConfig) -> dict:
    """What the forward pass depends on, spelled out: equal for two configs that compute the same function."""
    c = config
    values = asdict(c) | {
        "dt_rank": c.dt_width,
        "attn_kv_heads": c.kv_heads,
        "block_order": c.blocks_by_invocation,
        "attn_head_dim": c.head_dim,
        "norm_groups": c.gated_norm_groups,
    }
    drop = {
        *SILENT,
        *{
            "mamba1": ("n_groups", "norm_groups"),
            "mamba2": ("dt_rank",),
            "attention": ("n_groups", "norm_groups", "dt_rank", "d_state", "d_conv", "expand", "headdim", "conv_bias", "proj_bias"),
        }[c.mixer],
    }
    if not c.d_conv:
        drop |= {"conv_bias"}
    if not c.hybrid_layers:
        drop |= {"concat_embedding", "lora_rank", "lora_rank_qkv", "link_into"}
        if c.mixer != "attention":
            drop |= {"attn_heads", "attn_kv_heads", "attn_head_dim", "rope_theta", "d_mlp", "activation", "mlp_bias", "attn_gain"}
    return {name: value for name, value in values.items() if name not in drop}


def original_to_today(raw: dict) -> dict:
    """Pure Mamba's original config, which has no model_type, in the reference library's keys; any other as it is."""
    ssm = raw.get("ssm_cfg")
    if not isinstance(ssm, dict) and ssm is not None:
        raise CheckpointError(f"config.json: 'ssm_cfg' must be a dict, got {brief(ssm)}")
    raw = {key: value for key, value in raw.items() if key != "ssm_cfg"}
    ssm = dict(ssm or {})
    if "model_type" in raw or "n_layer" not in raw:
        return {**raw, **{key: value for key, value in ssm.items() if key != "layer"}}
    layer = ssm.pop("layer", "Mamba1")
    if not isinstance(layer, str) or layer not in ORIGINAL:
        raise CheckpointError(f"config.json: ssm_cfg.layer must be one of {', '.join(ORIGINAL)}: got {brief(layer)}")
    vocab, multiple = read_key(raw, "vocab_size", "int"), read_key(raw, "pad_vocab_size_multiple", "int", default=8)
    if multiple < 1:
        raise CheckpointError(f"config.json: pad_vocab_size_multiple must be 1 or more: got {multiple}")
    return {**ORIGINAL_DEFAULTS, **ORIGINAL[layer], **raw, **ssm, "vocab_size": vocab + -vocab % multiple}


def _today(raw: dict, model_type: str, form: Format) -> dict:
    """The config in today's spelling, every key known."""
    today = {}
    for key, value in raw.items():
        now = form.spellings.get(key, key)
        if now in today and today[now] != value:
            raise CheckpointError(f"config.json gives {now} in two spellings, as {brief(today[now])} and as {brief(value)}")
        today[now] = value
    if unknown := sorted(set(today) - form.known):
        raise CheckpointError(f"config.json of model_type {model_type!r} has keys there is no code for: {unknown}")
    for key, value in {**ONLY, **form.only}.items():
        if today.get(key, value) not in (value, None):
            raise CheckpointError(f"config.json: there is code only for {key} = {value!r}, got {brief(today[key])}")
    return today


def _build(values: dict) -> ZambaConfig:
    try:
        return ZambaConfig(**values)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"config.json: {error}") from error


def _own_fields(raw: dict) -> dict:
    kinds = {f.name: f.type for f in fields(ZambaConfig)}
    if unknown := sorted(set(raw) - set(kinds) - set(IGNORED)):
        raise CheckpointError(f"config.json has keys that are no field of ZambaConfig: {unknown}")
    return {name: read_key(raw, name, kinds[name]) for name in raw if name in kinds}


# --- the fields that need a few lines: (config in today's spelling, fields read so far) -> more fields --------------


def _read_zamba2(raw: dict, values: dict) -> dict:
    d, bias = values["d_model"], read_key(raw, "add_bias_linear", "bool", default=False)
    hybrid = _hybrid_layers(raw, values["n_layers"])
    rank = read_key(raw, "adapter_rank", "int", default=128)
    headdim = _headdim(raw, values, default_headdim=64)
    f = read_key(raw, "intermediate_size", "int", default=read_key(raw, "ffn_hidden_size", "int", default=4 * d))
    return {
        "mixer": "mamba2",
        **_read_attention(raw, values),
        "hybrid_layers": hybrid,
        "headdim": headdim,
        "d_mlp": f,
        # more blocks than invocations: the reference builds those that are used
        "n_shared_blocks": min(read_key(raw, "num_mem_blocks", "int", default=1), len(hybrid)),
        "lora_rank": rank if read_key(raw, "use_shared_mlp_adapter", "bool", default=True) else 0,
        "lora_rank_qkv": rank if read_key(raw, "use_shared_attention_adapter", "bool", default=False) else 0,
        "proj_bias": bias,
        "mlp_bias": bias,
        **_read_rope(raw, values),
        "dt_min": _read_dt_min(raw),
    }


def _read_zamba(raw: dict, values: dict) -> dict:
    d, n_layers = values["d_model"], values["n_layers"]
    if raw.get("layers_block_type") is None:
        period, offset = read_key(raw, "attn_layer_period", "int", 6), read_key(raw, "attn_layer_offset", "int", 4)
        if period < 1 or n_layers > 10_000:
            raise CheckpointError(
                "config.json: where layers_block_type is absent, attn_layer_period must be 1 or more "
                f"and num_hidden_layers at most 10000: got {period} and {n_layers}"
            )
        hybrid = tuple(i for i in range(2, n_layers) if i == 2 or (i - 3) % period == offset)
    else:
        hybrid = _hybrid_layers(raw, n_layers)
    dim = read_key(raw, "attention_head_dim", "int", default=None)
    usual = values["attn_heads"] and 2 * d // values["attn_heads"]
    return {
        "mixer": "mamba1",
        **_read_attention(raw, values),
        "hybrid_layers": hybrid,
        "headdim": _headdim(raw, values, default_heads=2),
        "dt_rank": _read_rank(raw, "mamba_dt_rank", d),
        "attn_head_dim": None if dim == usual else dim,
        "rope_theta": None,
        "lora_rank": 0,
        "d_mlp": read_key(raw, "intermediate_size", "int", default=4 * d),
        "n_shared_blocks": min(1, len(hybrid)),
    }


def _read_mamba(raw: dict, values: dict) -> dict:
    return {
        "mixer": "mamba1",
        "n_shared_blocks": 0,
        "headdim": values["expand"] * values["d_model"],
        "dt_rank": _read_rank(raw, "time_step_rank", values["d_model"]),
    }


def _read_mamba2(raw: dict, values: dict) -> dict:
    return {"mixer": "mamba2", "n_shared_blocks": 0, "dt_min": _read_dt_min(raw)}


READERS = {"zamba2": _read_zamba2, "zamba": _read_zamba, "mamba": _read_mamba, "mamba2": _read_mamba2}


def _read_attention(raw: dict, values: dict) -> dict:
    act = read_key(raw, "hidden_act", "str", default="gelu")
    if act not in ACTIVATIONS:
        raise CheckpointError(f"config.json: hidden_act must be one of {', '.join(ACTIVATIONS)}: got {act!r}")
    kv_heads = read_key(raw, "num_key_value_heads", "int", default=values["attn_heads"])
    return {"activation": ACTIVATIONS[act], "attn_kv_heads": None if kv_heads == values["attn_heads"] else kv_heads}


def _hybrid_layers(raw: dict, n_layers: int) -> tuple[int, ...]:
    if raw.get("layers_block_type") is None:
        return read_key(raw, "hybrid_layer_ids", "tuple[int, ...]")
    kinds = read_key(raw, "layers_block_type", "list[str]")
    if unknown := sorted(set(kinds) - {*MAMBA_LAYER, *HYBRID_LAYER}):
        raise CheckpointError(f"config.json: layers_block_type must hold {', '.join((*MAMBA_LAYER, *HYBRID_LAYER))}: got {unknown[:5]}")
    if len(kinds) != n_layers:
        raise CheckpointError(
            f"config.json: layers_block_type must name each of the num_hidden_layers = {n_layers} layers: it has {len(kinds)}"
        )
    return tuple(i for i, kind in enumerate(kinds) if kind in HYBRID_LAYER)


def _headdim(raw: dict, values: dict, default_headdim: int = 0, default_heads: int | None = None) -> int:
    d_inner = values["expand"] * values["d_model"]
    heads = read_key(raw, "n_mamba_heads", "int", default=default_heads)
    if heads is None:
        return read_key(raw, "mamba_headdim", "int", default=default_headdim)
    if heads < 1 or d_inner % heads:
        raise CheckpointError(f"config.json: n_mamba_heads must divide mamba_expand * hidden_size: got {heads}, {d_inner}")
    return d_inner // heads


def _read_rank(raw: dict, key: str, d_model: int) -> int | None:
    rank = None if raw.get(key, "auto") == "auto" else read_key(raw, key, "int | None")
    return None if rank == math.ceil(d_model / 16) else rank


def _read_rope(raw: dict, values: dict) -> dict:
    """rope_theta in either spelling. The authors' long-context form scales it; the reference library only says so."""
    rope = read_key(raw, "rope_parameters", "dict", default={})
    usual = {"rope_type": "default", "rope_theta": rope.get("rope_theta"), "partial_rotary_factor": 1.0}
    if {**usual, **rope} != usual:
        raise CheckpointError(f"config.json: there is code only for rope_parameters of rope_type 'default', got {brief(rope)}")
    theta = read_key(rope, "rope_theta", "float", default=read_key(raw, "rope_theta", "float", default=10000.0))
    dim = values["attn_heads"] and 2 * values["d_model"] // values["attn_heads"]
    long = read_key(raw, "use_long_context", "bool", default=False)
    if not read_key(raw, "use_mem_rope", "bool", default=False):
        theta = None
    elif long and dim > 2:
        theta *= 8 ** (dim / (dim - 2))
    return {"rope_theta": theta, **({"max_context": 16384} if long else {})}


def _read_dt_min(raw: dict) -> float:
    """time_step_limit: null, or (lower, upper) on the step size; there is code only for a lower one."""
    limit = raw.get("time_step_limit")
    if limit is None:
        return 0.0
    upper = limit[1] if isinstance(limit, list) and len(limit) == 2 else 0
    if upper not in (math.inf, "Infinity", {"__float__": "Infinity"}):
        raise CheckpointError(f"config.json: time_step_limit must be null or [lower, Infinity]: got {brief(limit)}")
    return read_key({"lower": limit[0]}, "lower", "float")


# --- keys that repeat what others say -----------------------------------------------------------------------------


def derived(c: ZambaConfig, model_type: str) -> dict[str, tuple]:
    """Such keys -> the values they may have; the first is what is written."""
    if model_type in ("mamba", "mamba2"):
        return {"intermediate_size": (c.d_inner,), **({"num_heads": (c.ssm_heads,)} if model_type == "mamba2" else {})}
    heads = {"n_mamba_heads": (c.ssm_heads,), "attention_hidden_size": (2 * c.d_model,)}
    if model_type == "zamba":
        return {**heads, "attention_head_dim": (c.head_dim,)}
    return {
        **heads,
        "mamba_headdim": (c.headdim,),
        "attention_head_dim": (2 * c.d_model // c.attn_heads,),
        "kv_channels": (c.d_model // c.attn_heads,),
        "num_query_groups": (c.attn_heads, c.kv_heads),
        "ffn_hidden_size": (c.d_mlp,),
        "hybrid_layer_ids": (list(c.hybrid_layers),),
    }


def _check_derived(raw: dict, config: ZambaConfig, model_type: str) -> None:
    for key, values in derived(config, model_type).items():
        if raw.get(key) is not None and raw[key] not in values:
            raise CheckpointError(
                f"config.json contradicts itself: {key} is {str(raw[key])[:200]}, but what it follows from "
                f"gives {' or '.join(dict.fromkeys(map(str, values)))}"
            )
