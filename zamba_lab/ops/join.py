"""Two tensors made one: a sum, and rows side by side. torch's own operations, but for few rows in inference natively."""

import torch
from torch import Tensor

from zamba_lab.native import direct, memory
from zamba_lab.native.step import join_step, plus_step


def plus(a: Tensor, b: Tensor) -> Tensor:
    """a + b, both (..., d)."""
    if _direct(a, b) and a.shape == b.shape:
        return plus_step(a, b)
    if direct.large(a) and a.dtype == b.dtype and a.shape == b.shape and direct.plain(b):
        return torch.add(a, b, out=memory.empty(a, *a.shape))
    return a + b


def concat(a: Tensor, b: Tensor) -> Tensor:
    """[a, b]. a: (..., n), b: (..., m). Returns (..., n + m)."""
    if _direct(a, b) and a.shape[:-1] == b.shape[:-1]:
        return join_step(a, b)
    if direct.large(a) and a.dtype == b.dtype and a.shape[:-1] == b.shape[:-1] and direct.plain(b):
        return torch.cat([a, b], dim=-1, out=memory.empty(a, *a.shape[:-1], a.shape[-1] + b.shape[-1]))
    return torch.cat([a, b], dim=-1)


def _direct(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and direct.few(a) and direct.serves(a) and direct.plain(b)
