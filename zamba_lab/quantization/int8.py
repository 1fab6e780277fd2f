"""Matrices of 8-bit weights with a scale for each row; and the base class of all quantised matrices."""

import torch
from torch import Tensor, nn

from zamba_lab.blocks.linear import Embedding, Linear
from zamba_lab.ops.linear import dequantised, linear_int8, quantised


class Quantised(nn.Module):
    """A quantised matrix, held in buffers."""

    def matrix(self, dtype: torch.dtype) -> Tensor:
        """The matrix it stands for, (out, in)."""
        raise NotImplementedError


class Int8Matrix(Quantised):
    """A matrix as int8 with a float32 scale for each row, as buffers: nothing to train.

    Moving the module to another dtype (`model.float()`) changes the type of its results, not what it holds.
    """

    values: Tensor  # (out, in)
    scale_bits: Tensor  # (out,), the bits of float32

    def __init__(self, weight: Tensor):
        super().__init__()
        values, scale = quantised(weight.detach())
        self.register_buffer("values", values)
        # As bits: module.to(dtype) casts every floating-point buffer, and a scale rounded to bfloat16 is a worse one.
        self.register_buffer("scale_bits", scale.view(torch.int32))

    @property
    def scale(self) -> Tensor:
        return self.scale_bits.view(torch.float32)

    def matrix(self, dtype: torch.dtype) -> Tensor:
        return dequantised(self.values, self.scale, dtype)


class Int8Linear(Int8Matrix):
    """y = x (scale W)^T + bias."""

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__(weight)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        return linear_int8(x, self.values, self.scale, self.bias)


class Int8Embedding(Int8Matrix):
    """Token embeddings as int8: a row is converted when it is looked up."""

    like: Tensor  # of the dtype of the results

    def __init__(self, weight: Tensor):
        super().__init__(weight)
        self.register_buffer("like", weight.new_empty(0))

    def forward(self, ids: Tensor) -> Tensor:
        return dequantised(self.values[ids], self.scale[ids], self.like.dtype)

    def logits(self, x: Tensor) -> Tensor:
        return linear_int8(x, self.values, self.scale)


AnyMatrix = Linear | Embedding | Quantised
