"""Causal attention of many queries in bfloat16 on a matrix unit (`attend.c`)."""

import ctypes
from functools import cache

import torch
from torch import Tensor

from zamba_lab.native import build, direct, memory
from zamba_lab.native.call import call
from zamba_lab.native.unit import matrix_unit, on_unit

LEAST_QUERIES, LEAST_KEYS = 64, 128  # below either torch's attention is mostly no slower (benchmarks/attend_op.py)
RATE = 200  # multiply-adds a nanosecond on one thread, about, hidden ones counted


def takes(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether these are tensors that the kernel takes and there is a matrix unit; what is left to ask is `direct.unseen`, and that
    scale > 0. Arguments as those of `attend`; where they do not fit each other torch broadcasts or says what is wrong."""
    (b, h, l, p), s = q.shape, k.shape[2]
    return (
        l >= LEAST_QUERIES
        and s >= LEAST_KEYS
        and q.dtype == k.dtype == v.dtype == torch.bfloat16
        and p % 32 == 0
        and all(direct.ordinary(t) and t.numel() > 0 and t.stride(3) == 1 for t in (q, k, v))
        and k.shape == v.shape == (b, k.shape[1], s, p)
        and h % k.shape[1] == 0
        and l <= s
        and build.available()
        and matrix_unit() == 1
    )


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T) v, each of the last l positions over all up to itself.

    q: (b, h, l, p). k, v: (b, h', s, p), h' divides h. scale: > 0. All bfloat16, p a multiple of 32, with strides but p's. Returns
    (b, h, l, p), lying as (b, l, h, p). Nothing is checked: see `takes`. A value that is not finite shows in up to 62 positions before
    its own. Raises RuntimeError where there is a matrix unit and the system refuses it.
    """
    return on_unit("zamba_lab::attend", _attend, q, k, v, scale)


def _attend(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    (b, h, l, p), s = q.shape, k.shape[2]
    work = memory.empty(q, _scratch_bytes(torch.get_num_threads(), p), dtype=torch.uint8)
    y = memory.empty(q, b, l, h, p)
    call(
        "attend_bf16",
        b * h * l * s * p / RATE,
        b,
        h,
        h // k.shape[1],
        l,
        s,
        p,
        float(scale),
        q,
        *q.stride()[:3],
        k,
        *k.stride()[:3],
        v,
        *v.stride()[:3],
        work,
        y,
    )
    return y.transpose(1, 2)


@cache
def _scratch_bytes(threads: int, p: int) -> int:
    ask = build.library().attend_scratch
    ask.restype = ctypes.c_int64
    return ask(*map(ctypes.c_int64, (threads, p)))
