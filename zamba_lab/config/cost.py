"""Parameters, FLOPs and bytes of a config, by formula: no model is built. Tests hold each against the built one.

Letters as everywhere: d d_model, e d_inner, h heads, n d_state, g groups, r LoRA rank, v vocabulary.
"""

from __future__ import annotations

import torch


def n_params(c) -> int:
    """All parameters, each counted once however often it is used."""
    return sum(params_by_part(c).values())


def params_by_part(c) -> dict[str, int]:
    """Parameters of each part of the whole model: where the weights are."""
    d, k = c.d_model, c.n_invocations
    block = attention_params(c) + mlp_params(c) + c.d_attn + d  # two norms
    if c.mixer == "attention":
        mixers = {"transformer layers": c.n_layers * (block)}
    else:
        mixers = {"mixers": c.n_layers * (mixer_params(c) + d)}
    return {
        "embedding": c.vocab_size * d,
        "head": 0 if c.tie_embeddings else c.vocab_size * d,
        **mixers,
        "shared blocks": c.n_shared_blocks * block,
        "adapters": k * adapter_params(c),
        "links": k * d * d,
        "final norm": d,
    }


def mixer_params(c) -> int:
    """One Mamba mixer, its input norm not included."""
    d, e, n, h = c.d_model, c.d_inner, c.d_state, c.ssm_heads
    conv = c.conv_dim * (c.d_conv + c.conv_bias) if c.d_conv else 0
    if c.mixer == "mamba2":
        width = e + c.conv_dim + h
        own = 3 * h + e  # dt_bias, A_log, D; gated norm
    else:
        width = 2 * e
        own = e * (c.dt_width + 2 * n) + e * (c.dt_width + 1) + e * n + e  # x_proj; dt_proj; A_log; D
    return width * (d + c.proj_bias) + conv + own + e * d + d * c.proj_bias


def attention_params(c) -> int:
    return c.d_attn * c.head_dim * (c.attn_heads + 2 * c.kv_heads) + c.attn_heads * c.head_dim * c.d_model


def mlp_params(c) -> int:
    return 3 * c.d_model * c.d_mlp + c.mlp_bias * (2 * c.d_mlp + c.d_model)


def adapter_params(c) -> int:
    """One invocation's adapters: on the MLP's first product, and on q, k and v."""
    qkv = sum(c.d_attn + heads * c.head_dim for heads in (c.attn_heads, c.kv_heads, c.kv_heads))
    return c.lora_rank * (c.d_model + 2 * c.d_mlp) + c.lora_rank_qkv * qkv


def flops_per_token(c, context: int) -> float:
    """2 FLOPs per multiply-add of the weight matrices, the attention products and the SSM recurrence.

    Element-wise work (norms, gates, activations, softmax) is left out, as is usual. The SSM is counted in its
    recurrent form: per channel and state component one multiply-add to decay, one to write, one to read.
    """
    d, k = c.d_model, c.n_invocations
    scores_and_mix = 2 * context * c.attn_heads * c.head_dim
    block = attention_params(c) + 3 * d * c.d_mlp + scores_and_mix
    if c.mixer == "attention":
        layers = c.n_layers * block
    else:
        e, n = c.d_inner, c.d_state
        ssm = 3 * e * n + c.conv_dim * max(c.d_conv, 1)  # without a convolution there is one tap, of 1
        if c.mixer == "mamba2":
            products = d * (e + c.conv_dim + c.ssm_heads) + e * d
        else:
            products = 3 * d * e + e * (c.dt_width + 2 * n) + e * c.dt_width
        layers = c.n_layers * (products + ssm)
    return 2.0 * (layers + k * (block + adapter_params(c) + d * d) + c.vocab_size * d)


def cache_bytes(c, context: int, batch: int, dtype: torch.dtype) -> int:
    """KV per invocation grows with the context; convolution inputs and SSM states do not. States: float32 or wider."""
    kv_layers = c.n_layers if c.mixer == "attention" else c.n_invocations
    total = kv_layers * 2 * c.kv_heads * c.head_dim * context * dtype.itemsize
    if c.mixer != "attention":
        wide = torch.promote_types(dtype, torch.float32)
        total += c.n_layers * (c.conv_state * c.conv_dim * dtype.itemsize + c.d_inner * c.d_state * wide.itemsize)
    return batch * total


def facts(c, context: int) -> dict:
    """What `zamba-lab info` says of a config: parameters, and what a token costs with so many before it."""
    return {
        "parameters": c.n_params,
        "parameters by part": params_by_part(c),
        "hybrid layers": list(c.hybrid_layers),
        "block of each invocation": list(c.blocks_by_invocation),
        f"FLOPs per token at {context}": int(c.flops_per_token(context)),
        f"cache bytes at {context}, bfloat16": c.cache_bytes(context, dtype=torch.bfloat16),
        "weight bytes, bfloat16": 2 * c.n_params,
    }


def table(facts: dict) -> str:
    """The facts, one a line."""
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict):
            lines += [f"{name}:", *(f"  {part:20} {count:>16,}" for part, count in value.items() if count)]
        else:
            lines.append(f"{name:36} {value:,.0f}" if isinstance(value, int | float) else f"{name:36} {value}")
    return "\n".join(lines)
