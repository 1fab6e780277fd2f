"""The grid of architectures that the laws are tested on: a small base and one entry per toggle, and some at once."""

from dataclasses import replace

import torch

import zamba_lab as zl

# fmt: off
BASE = zl.ZambaConfig(
    vocab_size=29, d_model=16, n_layers=5, d_state=6, headdim=4, n_groups=2, chunk_size=7, hybrid_layers=(1, 2, 4), attn_heads=4,
    d_mlp=12, lora_rank=3,
)
# fmt: on
PURE = replace(BASE, n_shared_blocks=0)

VARIANTS = {
    "base": BASE,
    "mamba1": replace(BASE, mixer="mamba1"),
    "mamba1 one head": replace(BASE, mixer="mamba1", headdim=32, dt_rank=3),
    "one block": replace(BASE, n_shared_blocks=1),
    "unshared": replace(BASE, n_shared_blocks=3),
    "AAB": replace(BASE, block_order=(0, 0, 1)),
    "first and last hybrid": replace(BASE, hybrid_layers=(0, 4)),
    "every layer hybrid": replace(BASE, hybrid_layers=(0, 1, 2, 3, 4)),
    "no lora": replace(BASE, lora_rank=0),
    "lora on qkv": replace(BASE, lora_rank_qkv=2),
    "lora on qkv only, grouped queries": replace(BASE, lora_rank=0, lora_rank_qkv=2, attn_kv_heads=2),
    "no concat": replace(BASE, concat_embedding=False),
    "no rope": replace(BASE, rope_theta=None),
    "one kv head, wide head": replace(BASE, attn_kv_heads=1, attn_head_dim=10),
    "untied": replace(BASE, tie_embeddings=False),
    "biases": replace(BASE, proj_bias=True, mlp_bias=True),
    "no conv bias": replace(BASE, conv_bias=False),
    "conv of one tap": replace(BASE, d_conv=1),
    "conv of two taps, four groups": replace(BASE, d_conv=2, n_groups=4),
    "silu, expand 3, one group": replace(BASE, activation="silu", expand=3, n_groups=1),
    "no convolution": replace(BASE, d_conv=0),
    "mamba1, no convolution": replace(BASE, mixer="mamba1", d_conv=0),
    "norm over all heads": replace(BASE, norm_groups=1),
    "norm over each head": replace(BASE, norm_groups=8),
    "link into the stream": replace(BASE, link_into="stream"),
    "usual attention scale": replace(BASE, attn_gain=0.5**0.5),
    "dt clamp": replace(BASE, dt_min=0.05),
    "pure mamba2": PURE,
    "pure mamba1": replace(PURE, mixer="mamba1"),
    "transformer": replace(PURE, mixer="attention"),
    "transformer, grouped queries, no rope": replace(PURE, mixer="attention", attn_kv_heads=2, rope_theta=None),
}


def make_model(config: zl.ZambaConfig, seed: int = 0) -> zl.Zamba:
    """A float64 model with every parameter random, so that no norm, skip or adapter is trivially right."""
    torch.manual_seed(seed)
    model = zl.Zamba(config).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("A_log", "dt_bias")):
                parameter.add_(0.3 * torch.randn_like(parameter))
            elif parameter.ndim < 2 or name.endswith(".D"):
                parameter.copy_(1 + 0.5 * torch.randn_like(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter) / parameter.shape[-1] ** 0.5)
    return model.eval()


def random_ids(config: zl.ZambaConfig, b: int = 2, l: int = 19, seed: int = 1) -> torch.Tensor:
    return torch.randint(config.vocab_size, (b, l), generator=torch.Generator().manual_seed(seed))
