"""The linear layer, and its form with int8 weights: for few rows on a CPU a native kernel bound by reading W.

For many rows torch's own products, but in bfloat16 a native one on a matrix unit, and on processors that multiply float32 faster W
becomes float32 a panel at a time. Both sum in float32 and round once.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from zamba_lab.native import direct, gemm, gemv, memory

MANY = 128  # rows from which turning W into float32 is repaid (benchmarks/prefill.py)
LARGE = 1 << 20  # elements of a W that is worth it
PANEL = 4 << 20  # float32 numbers that a panel has at most: it is multiplied while a cache still holds it


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, add: Tensor | None = None) -> Tensor:
    """y = x W^T + bias, then + add. x: (..., in). weight: (out, in). bias: (out,) or None. add: (..., out) or None.

    Returns (..., out). In inference at most 8 rows go to one native kernel, many rows of bfloat16 to another on a matrix unit, and
    to `in_panels` where that is faster; all sum in float32 and round once, and on a matrix unit `add` is in that sum. All else is
    F.linear, a large result into memory that was used before.
    """
    if weight.dtype == x.dtype and _direct(x, weight, bias, add):
        if gemv.takes(x, weight):
            return gemv.gemv(x, weight, bias, None, add)
        if gemm.takes(x, weight):
            return gemm.gemm(x, weight, bias, add=add)
        if _many(x, weight) and float32_is_faster():
            return _plus(in_panels(x, weight, bias), add)
        if x.numel() * len(weight) * x.element_size() > memory.LEAST * x.shape[-1]:
            return into_used(x, weight, bias, add)
    return _plus(F.linear(x, weight, bias), add)


def linear_adapted(x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor) -> Tensor:
    """y = x W^T + bias + (x down^T) up^T: a linear layer and what an adapter adds to it.

    x: (..., in). weight: (out, in). bias: (out,) or None. down: (rank, in). up: (out, rank). Returns (..., out). On a matrix unit all
    is one call, and one sum but for x down^T, rounded once; elsewhere the adapter's result is added to the rounded other one.
    """
    if (
        x.dtype == weight.dtype == down.dtype == up.dtype
        and _direct(x, weight, bias, None)
        and _direct(x, down, None, None)
        and direct.plain(up)
        and up.shape == (len(weight), len(down))
        and gemm.takes(x, weight)
    ):
        return gemm.gemm(x, weight, bias, down, up)
    return linear(linear(x, down), up, add=linear(x, weight, bias))


def into_used(x: Tensor, weight: Tensor, bias: Tensor | None = None, add: Tensor | None = None) -> Tensor:
    """The linear layer by torch's product, written where an earlier result was (`memory.empty`): a new one of several
    megabytes is met page by page for the first time. Arguments and result as those of `linear`, of one type, without gaps."""
    y = memory.empty(x, *x.shape[:-1], len(weight))
    rows, out = x.view(-1, x.shape[-1]), y.view(-1, len(weight))
    torch.mm(rows, weight.T, out=out) if bias is None else torch.addmm(bias, rows, weight.T, out=out)
    return y if add is None else y.add_(add)


def in_panels(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The linear layer of bfloat16 x and weight by products in float32: exact products, one rounding of each sum.

    x: (..., in). weight: (out, in). bias: (out,) or None. Returns (..., out), bfloat16.
    """
    out, width = weight.shape
    wide = x.reshape(-1, width).float()
    y = x.new_empty(len(wide), out)
    step = max(1, PANEL // width)
    room = memory.empty(x, max(PANEL, width), dtype=torch.float32)  # of one size, so that all layers use the same
    for first in range(0, out, step):
        part = weight[first : first + step]
        panel = room[: part.numel()].view(part.shape).copy_(part)
        sums = wide @ panel.T
        y[:, first : first + step] = sums if bias is None else sums.add_(bias[first : first + step])
    return y.view(*x.shape[:-1], out)


@cache
def float32_is_faster() -> bool:
    """Whether this processor multiplies matrices faster in float32 than in bfloat16: where it has no instruction for the latter,
    or one but no matrix unit, on Intel's (measured; on others the instruction is twice as fast as float32's)."""
    has = getattr(torch.cpu, "get_capabilities", dict)()
    intel = "Intel" in has.get("cpu_name", "")
    return bool(has.get("avx2") and not has.get("amx_bf16") and (intel or not has.get("avx512_bf16")))


def _many(x: Tensor, weight: Tensor) -> bool:
    return x.dtype == weight.dtype == torch.bfloat16 and weight.numel() >= LARGE and x.numel() >= MANY * max(1, weight.shape[1])


def linear_int8(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None, add: Tensor | None = None) -> Tensor:
    """y = x (scale W)^T + bias, then + add. weight: (out, in) int8. scale: (out,) float32. x and bias stay as they are.

    For few rows weights become floats in registers; for many they are written out in x's dtype first.
    """
    if (
        gemv.takes(x, weight)
        and _direct(x, weight, bias, add)
        and direct.plain(scale)
        and scale.dtype == torch.float32
        and scale.shape == weight.shape[:1]
    ):
        return gemv.gemv(x, weight, bias, scale, add)
    return linear(x, dequantised(weight, scale, x.dtype), bias, add)


def _direct(x: Tensor, weight: Tensor, bias: Tensor | None, add: Tensor | None) -> bool:
    """Whether nobody looks and all fits as it is; where it does not, torch broadcasts or says what is wrong."""
    return (
        direct.unseen()
        and direct.plain(x)
        and direct.plain(weight)
        and weight.ndim == 2
        and x.shape[-1] == weight.shape[1]
        and (bias is None or (direct.plain(bias) and bias.dtype == x.dtype and bias.shape == weight.shape[:1]))
        and (add is None or (direct.plain(add) and add.dtype == x.dtype and add.shape == (*x.shape[:-1], len(weight))))
    )


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
