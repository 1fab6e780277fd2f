"""The linear layer, and its form with int8 weights: for few rows on a CPU a native kernel bound by reading W."""

import torch
import torch.nn.functional as F
from torch import Tensor

from zamba_lab.ops.kernels import direct, gemv


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, add: Tensor | None = None) -> Tensor:
    """y = x W^T + bias, then + add. x: (..., in). weight: (out, in). bias: (out,) or None. add: (..., out) or None.

    Returns (..., out). At most 8 rows in inference go to the native kernel, which sums in float32 and rounds once; all else is F.linear.
    """
    if gemv.takes(x, weight) and _direct(x, weight, bias, add) and weight.dtype == x.dtype:
        return gemv.gemv(x, weight, bias, None, add)
    return _plus(F.linear(x, weight, bias), add)


def linear_int8(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None, add: Tensor | None = None
                ) -> Tensor:
    """y = x (scale W)^T + bias, then + add. weight: (out, in) int8. scale: (out,) float32. x and bias stay as they are.

    For few rows weights become floats in registers; for many they are written out in x's dtype first.
    """
    if gemv.takes(x, weight) and _direct(x, weight, bias, add):
        return gemv.gemv(x, weight, bias, scale, add)
    return _plus(F.linear(x, dequantised(weight, scale, x.dtype), bias), add)


def _direct(x: Tensor, weight: Tensor, bias: Tensor | None, add: Tensor | None) -> bool:
    return (direct.unseen() and direct.plain(x) and direct.plain(weight) and direct.plain(bias)
            and (add is None or (direct.plain(add) and add.dtype == x.dtype)))


def _plus(y: Tensor, add: Tensor | None) -> Tensor:
    return y if add is None else y + add


def quantised(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 weights and a float32 scale for each row, so that scale * int8 is nearest to the weight.

    weight: (out, in). The largest of a row becomes 127; so no weight moves by more than scale / 2 = max |row| / 254.
    """
    wide = weight.float()
    scale = wide.abs().amax(1) / 127
    return (wide / scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).round().to(torch.int8), scale


def dequantised(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    return (weight.float() * scale[..., None]).to(dtype)
