"""The published shapes, as data. Zamba: arXiv 2405.16712; Zamba2: 2411.15242; pure Mamba: 2312.00752, 2405.21060."""

from pathlib import Path

from zamba_lab import resources

_MISTRAL = dict(vocab_size=32000, pad_token_id=0, bos_token_id=1, eos_token_id=2, init="authors")
_ZAMBA1 = dict(mixer="mamba1", n_shared_blocks=1, lora_rank=0, rope_theta=None, d_state=16)
_ZAMBA2 = dict(_MISTRAL, mixer="mamba2", headdim=64, attn_heads=32, lora_rank=128)
_NEOX = dict(n_shared_blocks=0, hybrid_layers=(), pad_token_id=0, bos_token_id=0, eos_token_id=0, init="authors", d_model=768, n_layers=24)

_OF_7B_V1 = dict(d_model=3712, n_layers=76, headdim=3712, hybrid_layers=(2, *range(7, 74, 6)), attn_heads=16, d_mlp=14848)
_OF_1_2B = dict(d_model=2048, n_layers=38, d_state=128, n_shared_blocks=1, hybrid_layers=range(5, 36, 6), d_mlp=8192, lora_rank_qkv=128)
_OF_2_7B = dict(d_model=2560, n_layers=54, hybrid_layers=(*range(6, 43, 6), 47, 51), d_mlp=10240, rope_theta=None)
_OF_7B = dict(d_model=3584, n_layers=81, n_groups=2, hybrid_layers=(6, *range(11, 78, 6)), d_mlp=14336)
PUBLISHED: dict[str, dict] = {
    "zamba-7b-v1": {**_MISTRAL, **_ZAMBA1, **_OF_7B_V1},
    "zamba2-1.2b": {**_ZAMBA2, **_OF_1_2B},
    "zamba2-2.7b": {**_ZAMBA2, **_OF_2_7B},
    "zamba2-7b": {**_ZAMBA2, **_OF_7B},
    "mamba-130m": dict(_NEOX, mixer="mamba1", vocab_size=50280, d_state=16, headdim=1536, dt_rank=48),
    "mamba2-130m": dict(_NEOX, mixer="mamba2", vocab_size=50288, d_state=128, headdim=64),
}

# Models this project trained; their folders hold config, weights, tokenizer and how they were made. They are of one size, within
# 2 %, and differ in what stands in their depth. A shared block is twice as wide as the stream, so those without are wider for the
# same parameters: after 600 steps 14 Mamba-2 layers of width 128 stood at 1.88 bits a byte, 6 of width 192 at 1.75.
_NANO = dict(vocab_size=2048, d_model=128, d_state=32, headdim=32, attn_heads=4, max_context=1024, init="small", link_gain=1.0)
_SHARED = dict(_NANO, hybrid_layers=(1, 3, 5, 7))
_ALONE = dict(_NANO, n_shared_blocks=0, hybrid_layers=())
NANOS: dict[str, dict] = {
    "zamba2-nano": dict(_SHARED, mixer="mamba2", n_layers=8, n_shared_blocks=2, d_mlp=192, lora_rank=8),
    "zamba1-nano": dict({**_SHARED, **_ZAMBA1}, n_layers=9, headdim=128, d_mlp=512),
    "mamba2-nano": dict(_ALONE, mixer="mamba2", d_model=192, n_layers=6),
    "transformer-nano": dict(_ALONE, mixer="attention", d_model=192, n_layers=4, d_mlp=364),
}
PRESETS: dict[str, dict] = {**PUBLISHED, **NANOS}
SHIPPED: dict[str, Path] = {name: resources.folder("data") / name for name in NANOS}
