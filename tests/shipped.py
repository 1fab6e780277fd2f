"""The trained model that is part of the project, and a text for it: what a lens finds must hold there, too."""

from functools import cache

import torch

import zamba_lab as zl

TEXT = '''class Counter:
    """Count things."""

    def __init__(self, name):
        self.name = name
        self.value = 0

    def add(self, value):
        self.value = self.value + value
        return self.value
'''


@cache
def nano(dtype: torch.dtype = torch.float64) -> zl.Zamba:
    """Read it; do not write into it."""
    return zl.load("zamba2-nano", dtype=dtype)


def nano_ids(b: int = 1, l: int = 37) -> torch.Tensor:
    """b texts of l tokens, each a piece of one text."""
    ids = nano().tokenizer.encode(TEXT)
    return torch.tensor([[ids[(7 * row + i) % len(ids)] for i in range(l)] for row in range(b)])
