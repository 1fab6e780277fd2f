"""The linear layer, and its form with int8 weights: for few rows in inference the native matrix-vector product, else torch's."""

import torch
import torch.nn.functional as F
from torch import Tensor

from zamba_lab import native


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x W^T + bias. x: (..., in). weight: (out, in). bias: (out,) or None. Returns (..., out)."""
    if form := native.find("linear", x, weight, bias):
        return form(x, weight, bias)
    return F.linear(x, weight, bias)


def linear_int8(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """y = x W^T + bias with W = scale * weight, row by row. weight: (out, in) int8. scale: (out,) float32. Otherwise as `linear`.

    For few rows weights become floats in registers; for many they are written out in x's dtype first.
    """
    if form := native.find("linear_int8", x, weight, scale, bias):
        return form(x, weight, scale, bias)
    return F.linear(x, dequantised(weight, scale, x.dtype), bias)


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 weights and a float32 scale for each row, so that scale * int8 is nearest to the weight.

    weight: (out, in). The largest of a row becomes 127; so no weight moves by more than scale / 2 = max |row| / 254.
    """
    wide = weight.float()
    scale = wide.abs().amax(1) / 127
    return (wide / scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round().to(torch.int8), scale


def dequantised(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """scale * weight, row by row, in a dtype. weight: (..., in) int8. scale: (...,) float32."""
    return (weight.float() * scale[..., None]).to(dtype)
