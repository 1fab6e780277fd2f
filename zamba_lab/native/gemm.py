"""A linear layer for many rows of bfloat16 on a matrix unit, Intel's AMX (`gemm.c`), with its adapter: y = x W^T + (x down^T) up^T."""

import ctypes
from functools import cache

import torch
from torch import Tensor

from zamba_lab.native import build, memory
from zamba_lab.native.call import call
from zamba_lab.native.unit import matrix_unit, on_unit

LEAST_ROWS, LEAST_OUT = 64, 512  # below either, torch's product is no slower (benchmarks/gemm_op.py)
RATE = 600  # multiply-adds a nanosecond on one thread, about


def takes(x: Tensor, weight: Tensor) -> bool:
    """Whether types and sizes fit and there is a matrix unit; the rest is `direct.unseen` and `direct.plain`."""
    return (
        x.dtype == weight.dtype == torch.bfloat16
        and len(weight) >= LEAST_OUT
        and x.numel() >= LEAST_ROWS * x.shape[-1] > 0
        and build.available()
        and matrix_unit() == 1
    )


def gemm(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, down: Tensor | None = None, up: Tensor | None = None, add: Tensor | None = None
) -> Tensor:
    """y = x W^T + bias + low up^T + add, summed in float32 and rounded once; low = x down^T, rounded, too.

    x: (..., in). weight: (out, in). bias: (out,) or None. down: (rank, in) and up: (out, rank), or None. add: (..., out) or None.
    Returns (..., out).
    All bfloat16, not empty and without gaps. Nothing is checked: see `takes`. Without a matrix unit the result is the same but
    for the order of sums and numbers below 2^-126, which a unit takes for zeros, hundreds of times later. Raises RuntimeError
    where there is one and the system refuses it.
    """
    return on_unit("zamba_lab::gemm", _gemm, x, weight, bias, down, up, add)


def _gemm(x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor | None, up: Tensor | None, add: Tensor | None) -> Tensor:
    (out, width), rows, threads = weight.shape, x.numel() // x.shape[-1], torch.get_num_threads()
    rank = 0 if down is None else len(down)
    work = memory.empty(x, _scratch_bytes(threads, width, rank), dtype=torch.uint8)
    y, low = memory.empty(x, *x.shape[:-1], out), memory.empty(x, rows, rank) if rank else None
    call(
        "gemm_bf16", rows * (width * (out + rank) + rank * out) / RATE, rows, width, rank, out, x, weight, down, up, bias, add, work, low, y
    )
    return y


@cache
def _scratch_bytes(threads: int, width: int, rank: int) -> int:
    ask = build.library().gemm_scratch
    ask.restype = ctypes.c_int64
    return ask(*map(ctypes.c_int64, (threads, width, rank)))
