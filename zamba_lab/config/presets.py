"""The published shapes, as data. Zamba: arXiv 2405.16712; Zamba2: 2411.15242; pure Mamba: 2312.00752, 2405.21060."""

from pathlib import Path

from zamba_lab import resources
from zamba_lab.config import ZambaConfig

_MISTRAL = dict(vocab_size=32000, pad_token_id=0, bos_token_id=1, eos_token_id=2)
_ZAMBA2 = dict(_MISTRAL, mixer="mamba2", headdim=64, attn_heads=32, lora_rank=128, init="authors")
_NEOX = dict(n_shared_blocks=0, hybrid_layers=(), pad_token_id=0, bos_token_id=0, eos_token_id=0, init="authors")


def _every(period: int, first: int, last: int, then: tuple[int, ...] = ()) -> tuple[int, ...]:
    return (*range(first, last + 1, period), *then)


PUBLISHED: dict[str, dict] = {
    "zamba-7b-v1": dict(
        _MISTRAL,
        mixer="mamba1",
        d_model=3712,
        n_layers=76,
        d_state=16,
        headdim=3712,
        n_shared_blocks=1,
        hybrid_layers=(2, *_every(6, 7, 73)),
        attn_heads=16,
        rope_theta=None,
        d_mlp=14848,
        lora_rank=0,
        init="authors",
    ),
    "zamba2-1.2b": dict(
        _ZAMBA2, d_model=2048, n_layers=38, d_state=128, n_shared_blocks=1, hybrid_layers=_every(6, 5, 35), d_mlp=8192, lora_rank_qkv=128
    ),
    "zamba2-2.7b": dict(
        _ZAMBA2,
        d_model=2560,
        n_layers=54,
        d_state=64,
        n_shared_blocks=2,
        hybrid_layers=_every(6, 6, 42, (47, 51)),
        d_mlp=10240,
        rope_theta=None,
    ),
    "zamba2-7b": dict(
        _ZAMBA2, d_model=3584, n_layers=81, d_state=64, n_groups=2, n_shared_blocks=2, hybrid_layers=(6, *_every(6, 11, 77)), d_mlp=14336
    ),
    "mamba-130m": dict(_NEOX, mixer="mamba1", vocab_size=50280, d_model=768, n_layers=24, d_state=16, headdim=1536, dt_rank=48),
    "mamba2-130m": dict(_NEOX, mixer="mamba2", vocab_size=50288, d_model=768, n_layers=24, d_state=128, headdim=64),
}

# Models this project trained; their folders hold config, weights, tokenizer and how they were made. They are of one size, within
# 2 %, and differ in what stands in their depth. A shared block is twice as wide as the stream, so those without are wider for the
# same parameters: after 600 steps 14 Mamba-2 layers of width 128 stood at 1.88 bits a byte, 6 of width 192 at 1.75.
_NANO = dict(vocab_size=2048, d_model=128, d_state=32, headdim=32, attn_heads=4, max_context=1024, init="small", link_gain=1.0)
_ALONE = dict(_NANO, n_shared_blocks=0, hybrid_layers=())
NANOS: dict[str, dict] = {
    "zamba2-nano": dict(_NANO, mixer="mamba2", n_layers=8, n_shared_blocks=2, hybrid_layers=(1, 3, 5, 7), d_mlp=192, lora_rank=8),
    "zamba1-nano": dict(
        _NANO,
        mixer="mamba1",
        n_layers=9,
        n_shared_blocks=1,
        hybrid_layers=(1, 3, 5, 7),
        d_mlp=512,
        lora_rank=0,
        d_state=16,
        headdim=128,
        rope_theta=None,
    ),
    "mamba2-nano": dict(_ALONE, mixer="mamba2", d_model=192, n_layers=6),
    "transformer-nano": dict(_ALONE, mixer="attention", d_model=192, n_layers=4, d_mlp=364),
}
SHIPPED: dict[str, Path] = {name: resources.folder("data") / name for name in NANOS}


def preset(name: str) -> ZambaConfig:
    """The config of a published or shipped model, by name. ValueError lists the names there are."""
    table = {**PUBLISHED, **NANOS}
    if name not in table:
        raise ValueError(f"no preset {name!r}: there are {', '.join(table)}")
    return ZambaConfig(**table[name])


def presets() -> tuple[str, ...]:
    """Every name that `preset` takes."""
    return (*PUBLISHED, *SHIPPED)
