"""ZambaConfig -> config.json: the published format that can hold it, else our own. Tables in `published.py`."""

from dataclasses import asdict, fields

from zamba_lab.checkpoints.config_read import derived, read_config
from zamba_lab.checkpoints.published import ACTIVATIONS, FORMATS, OWN
from zamba_lab.config import ZambaConfig

# The formats that might hold a config, the best first. Models without attention go first to the pure ones, since the
# reference library cannot cache them in the hybrid ones.
CANDIDATES = {
    ("mamba2", True): ("zamba2",),
    ("mamba1", True): ("zamba",),
    ("mamba2", False): ("mamba2", "zamba2"),
    ("mamba1", False): ("mamba", "zamba"),
    ("attention", False): (),
}


def published_type(config: ZambaConfig) -> str:
    """The model_type that the config is written as; ours if no published format can hold it."""
    candidates = CANDIDATES[config.mixer, bool(config.hybrid_layers)]
    return next((model_type for model_type in candidates if not limits(config, model_type)), OWN)


def limits(config: ZambaConfig, model_type: str) -> list[str]:
    """Why the reference library cannot compute this config as that model_type; empty if it can."""
    c, hybrid = config, bool(config.hybrid_layers)
    rules = {
        "zamba2": (
            (not c.conv_bias, "the convolution always has a bias: conv_bias=False"),
            (hybrid and c.proj_bias != c.mlp_bias, "one switch for both: proj_bias and mlp_bias differ"),
            (hybrid and c.lora_rank == 0, "the MLP is always adapted: lora_rank=0"),
            (hybrid and c.lora_rank_qkv not in (0, c.lora_rank), "one rank for both: lora_rank and lora_rank_qkv differ"),
            (hybrid and c.lora_rank_qkv and c.kv_heads != c.attn_heads, "adapters of k and v are as wide as q's: attn_kv_heads"),
            (hybrid and c.head_dim != 2 * c.d_model // c.attn_heads, "the width decides it: attn_head_dim"),
        ),
        "zamba": (
            (hybrid and c.n_shared_blocks != 1, "there is one block: n_shared_blocks"),
            (hybrid and c.rope_theta is not None, "there are no positions: rope_theta"),
            (hybrid and (c.lora_rank or c.lora_rank_qkv), "there are no adapters: lora_rank"),
            (hybrid and c.mlp_bias, "the MLP has no bias: mlp_bias"),
            (c.dt_min > 0, "there is no clamp: dt_min"),
            (c.n_invocations == 1 and c.tie_embeddings, "a block used once cannot be opened: hybrid_layers"),
        ),
        "mamba2": (
            (c.norm_eps != 1e-5, "the gated norm has the same epsilon: norm_eps"),
            (c.dt_min > 0, "the clamp is not written: dt_min"),
        ),
        "mamba": ((c.headdim != c.d_inner, "there is one head: headdim"), (c.dt_min > 0, "there is no clamp: dt_min")),
    }[model_type]
    return [why for broken, why in (*rules, *_common_limits(c)) if broken]


def _common_limits(c: ZambaConfig) -> tuple[tuple[bool, str], ...]:
    hybrid, unshared = bool(c.hybrid_layers), not c.tie_embeddings and c.n_shared_blocks < c.n_invocations
    return (
        (not c.d_conv, "there is always a convolution: d_conv=0"),
        (c.mixer == "mamba2" and c.norm_groups is not None, "the gated norm has the groups of B and C: norm_groups"),
        (hybrid and c.attn_gain != 1, "the scores' scale is fixed: attn_gain"),
        (hybrid and c.link_into != "mixer", "the link is added to the mixer's input: link_into"),
        (hybrid and not c.concat_embedding, "the block always reads [x, x0]: concat_embedding=False"),
        (hybrid and c.block_order is not None, "the blocks always alternate: block_order"),
        (hybrid and unshared, "untying the head unshares the blocks: tie_embeddings=False"),
    )


def write_config(config: ZambaConfig, dtype: str) -> dict:
    """The config.json of a config. dtype: of the weights, as in torch.<dtype>."""
    model_type = published_type(config)
    if model_type == OWN:
        return {"model_type": OWN, "torch_dtype": dtype, **asdict(config)}
    c, form = config, FORMATS[model_type]
    raw = {key: getattr(c, name) for name, (key, *_) in form.fields.items()}
    raw |= {key: values[0] for key, values in derived(c, model_type).items()}
    raw |= {
        "architectures": [form.architecture],
        "model_type": model_type,
        "torch_dtype": dtype,
        "eos_token_id": c.eos_token_id,
        **WRITERS[model_type](c),
    }
    read = read_config(raw)
    own = {f.name: getattr(c, f.name) for f in fields(c) if getattr(read, f.name) != getattr(c, f.name)}
    return {**raw, OWN: own} if own else raw


def _write_hybrid(c: ZambaConfig) -> dict:
    return {
        "layers_block_type": ["hybrid" if i in c.hybrid_layers else "mamba" for i in range(c.n_layers)],
        "num_key_value_heads": c.kv_heads,
        "intermediate_size": c.d_mlp,
        "hidden_act": next(key for key, ours in ACTIVATIONS.items() if ours == c.activation),
        # The reference library clamps a prompt's step sizes to this from below. It allows no 0 here.
        "time_step_min": max(c.dt_min, 1e-20),
        # It cannot cache a model without attention, and caches unless told not to.
        "use_cache": bool(c.hybrid_layers),
    }


def _write_zamba2(c: ZambaConfig) -> dict:
    rope = {} if c.rope_theta is None else {"rope_theta": c.rope_theta}
    return {
        **_write_hybrid(c),
        **rope,
        "use_mem_rope": c.rope_theta is not None,
        "num_mem_blocks": max(1, c.n_shared_blocks),
        "adapter_rank": c.lora_rank,
        "use_shared_mlp_adapter": True,
        "use_shared_attention_adapter": c.lora_rank_qkv > 0,
        "use_long_context": False,
        "add_bias_linear": c.proj_bias,
    }


WRITERS = {
    "zamba2": _write_zamba2,
    "zamba": lambda c: {**_write_hybrid(c), "hidden_mamba_act": "silu", "mamba_dt_rank": c.dt_width},
    "mamba": lambda c: {"hidden_act": "silu", "time_step_rank": c.dt_width},
    "mamba2": lambda c: {"hidden_act": "silu"},
}
