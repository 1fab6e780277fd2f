"""Causal attention of many queries in bfloat16 on a matrix unit (`attend.c`)."""

import ctypes
from functools import cache

import torch
from torch import Tensor

from zamba_lab.ops.kernels import build, memory
from zamba_lab.ops.kernels.call import call
from zamba_lab.ops.kernels.gemm import matrix_unit

LEAST_QUERIES, LEAST_KEYS = 64, 128     # below either, torch's attention is no slower (benchmarks/attend_op.py)
RATE = 400                              # multiply-adds a nanosecond on one thread, about


def takes(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether types, sizes and layout fit and there is a matrix unit; the rest is `direct.unseen`. Arguments as those of `attend`."""
    return (q.dtype == k.dtype == v.dtype == torch.bfloat16 and q.shape[2] >= LEAST_QUERIES and k.shape[2] >= LEAST_KEYS
            and q.shape[3] % 32 == 0 and min(q.numel(), k.numel()) > 0 and q.stride(3) == k.stride(3) == v.stride(3) == 1
            and build.available() and matrix_unit() == 1)


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T) v, each of the last l positions over all up to itself.

    q: (b, h, l, p). k, v: (b, h', s, p), h' divides h. scale: > 0. All bfloat16, p a multiple of 32, with strides but p's. Returns
    (b, h, l, p), lying as (b, l, h, p). Nothing is checked: see `takes`. A value that is not finite shows in up to 31 positions before
    its own. Raises RuntimeError where there is a matrix unit and the system refuses it.
    """
    if matrix_unit() < 0:
        raise RuntimeError("the system does not let this process use the processor's matrix unit")
    if torch._C._autograd._profiler_enabled():
        with torch.profiler.record_function("zamba_lab::attend"):
            return _attend(q, k, v, scale)
    return _attend(q, k, v, scale)


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    (b, h, l, p), s = q.shape, k.shape[2]
    work = memory.empty(q, _scratch_bytes(torch.get_num_threads(), p), dtype=torch.uint8)
    y = memory.empty(q, b, l, h, p)
    call("attend_bf16", b * h * l * s * p / RATE, b, h, h // k.shape[1], l, s, p, float(scale), q, *q.stride()[:3], k, *k.stride()[:3],
         v, *v.stride()[:3], work, y)
    return y.transpose(1, 2)


@cache
def _scratch_bytes(threads: int, p: int) -> int:
    ask = build.library().attend_scratch
    ask.restype = ctypes.c_int64
    return ask(*map(ctypes.c_int64, (threads, p)))
