"""A hybrid small enough to train in a test, and a text with something to learn."""

from dataclasses import replace

import numpy as np
import torch

from zamba_lab.config import ZambaConfig
from zamba_lab.corpora import Packed
from zamba_lab.model import Zamba

# fmt: off
TINY = ZambaConfig(
    vocab_size=29, d_model=16, n_layers=3, d_state=4, headdim=8, chunk_size=7, n_shared_blocks=1, hybrid_layers=(1, 2), attn_heads=2,
    d_mlp=24, lora_rank=2,
)
# fmt: on


def tiny_model(seed: int = 0, vocab_size: int = TINY.vocab_size, **changes) -> Zamba:
    torch.manual_seed(seed)
    return Zamba(replace(TINY, vocab_size=vocab_size, **changes))


def periodic(n: int, period: int = 5) -> np.ndarray:
    """The same few tokens over and over."""
    return (np.arange(n) % period + 3).astype(np.uint16)


def with_documents(n: int, mean: int = 9, seed: int = 0) -> np.ndarray:
    """Random ids in documents of random lengths, each after the start token, 1."""
    random = np.random.default_rng(seed)
    tokens = random.integers(3, TINY.vocab_size, n).astype(np.uint16)
    tokens[random.random(n) < 1 / mean] = 1
    tokens[0] = 1
    return tokens


def random_packed(n: int, seed: int = 0) -> Packed:
    """Random ids, as if each were two bytes of text."""
    return Packed(np.random.default_rng(seed).integers(0, TINY.vocab_size, n).astype(np.uint16), 2 * n)


class Uniform(torch.nn.Module):
    """Every token is as likely as every other."""

    def __init__(self, vocab_size: int):
        super().__init__()
        self.vocab_size = vocab_size

    def forward(self, ids):
        return torch.zeros(*ids.shape, self.vocab_size)


class Elsewhere(Uniform):
    """A model whose weights are on another device than the text: it refuses what is not brought there."""

    def __init__(self, vocab_size: int):
        super().__init__(vocab_size)
        self.weight = torch.nn.Parameter(torch.empty(1, device="meta"))

    def forward(self, ids):
        assert ids.device == self.weight.device
        return super().forward(ids)  # as numbers that can be looked at
