"""A linear layer for few rows by `gemv.c`: y = x W^T + bias, W float32, bfloat16, or int8 with a scale a row."""

import math

import torch
from torch import Tensor

from zamba_lab.native.call import call, filled
from zamba_lab.native.needs import Needs, Tensors

DTYPES = {torch.float32: 0, torch.bfloat16: 1}  # of x; gemv.c counts so
MOST_ROWS = 8  # with more, torch's product is as good
RATE = 10  # multiply-adds a nanosecond on one thread, about
_NAMES = {torch.float32: "gemv_f32", torch.bfloat16: "gemv_bf16", torch.int8: "gemv_int8"}


def _few_rows(size: dict, tensors: Tensors) -> bool:
    """Whether reading the weights is the whole cost. Those with gaps would have to be copied first."""
    return tensors[0].dtype in DTYPES and math.prod(size["..."]) <= MOST_ROWS and tensors[1].is_contiguous()


NEEDS = Needs("... i, o i, o?", _few_rows)
NEEDS_INT8 = Needs("... i, int8 o i, float32 o, o?", _few_rows)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x: (..., in), at most MOST_ROWS rows. weight: (out, in). bias: (out,). Returns (..., out)."""
    return linear_int8(x, weight, None, bias)


def linear_int8(x: Tensor, weight: Tensor, scale: Tensor | None, bias: Tensor | None = None) -> Tensor:
    """The same with weights of int8 and a float32 scale for each row, (out,)."""
    out, width = weight.shape
    rows, y = x.numel() // width, x.new_empty(*x.shape[:-1], out)
    tensors = filled(x), weight, filled(scale), filled(bias), None, y
    call(_NAMES[weight.dtype], rows * out * width / RATE, rows, out, width, DTYPES[x.dtype], *tensors)
    return y
