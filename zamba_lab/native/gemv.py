"""A linear layer for few rows, native (`gemv.c`): y = x W^T + bias, W float32, bfloat16, or int8 with a scale a row."""

import torch
from torch import Tensor

from zamba_lab.native.direct import few, run

_NAMES = {torch.float32: "gemv_f32", torch.bfloat16: "gemv_bf16", torch.int8: "gemv_int8"}
_HALF = {torch.float32: 0, torch.bfloat16: 1}


def takes(x: Tensor, weight: Tensor) -> bool:
    """Whether the types and the number of rows fit; the rest is `direct.unseen` and `direct.plain`."""
    return x.dtype in _HALF and (weight.dtype == x.dtype or weight.dtype == torch.int8) and few(x) and weight.numel() > 0


def gemv(x: Tensor, weight: Tensor, bias: Tensor | None = None, scale: Tensor | None = None, add: Tensor | None = None) -> Tensor:
    """x: (..., in), at most direct.MOST_ROWS rows. weight: (out, in). bias: (out,). scale: (out,) float32, for int8.
    add: (..., out), added to the rounded result. Returns (..., out), x's dtype. Nothing is checked: see `takes`."""
    out, width = weight.shape
    y = x.new_empty(*x.shape[:-1], out)
    run(_NAMES[weight.dtype], "iiiipppppo", x.numel() // width, out, width, _HALF[x.dtype], x, weight, scale, bias, add, y)
    return y
