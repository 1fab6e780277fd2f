"""Memory for large results, used again when no tensor looks at it any more.

The C library hands large blocks back to the system, and each new one is touched for the first time page by page: for a
result of 42 MB that is as slow as the scan that fills it, and decoding at 1.2B shapes meets thousands of new pages a token.
So results of LEAST bytes and more come from here. What is kept stays below MOST bytes; what does not fit is new each time.

It lies in huge pages where the system has them. That saves most of the first touches, and a prompt of 1.2B takes four fifths of
the time: finding where a page lies is slow, the more so in a virtual machine.

A tensor made of a numpy array holds the array, and so does every view of the tensor and whatever autograd saved of it, so
the array's count of references says whether anybody is left.
"""

import ctypes
import math
import sys
from collections import deque
from functools import cache

import numpy as np
import torch
from torch import Tensor

LEAST, MOST = 1 << 20, 512 << 20
SLAB = 16 << 20  # what is smaller shares one of this size with others of its own size
_PAGE, _HUGE_PAGE, _MADV_HUGEPAGE = 4 << 10, 2 << 20, 14

_kept: dict[int, deque[np.ndarray]] = {}  # by size; in a queue the one that was handed out longest ago comes first
_uncut: dict[int, np.ndarray] = {}  # by size of what is cut from it: what is left of a slab


def empty(like: Tensor, *shape: int, dtype: torch.dtype | None = None, huge: bool = True) -> Tensor:
    """A new tensor without gaps, of like's type unless another is named; like lies on the CPU.

    huge: False leaves new memory in usual pages: for a single token's states. The first touch of a huge page is slow where a virtual
    machine's host has to find it first (a first token then took 0.5 s instead of 0.2), and later tokens are as fast.
    """
    nbytes = (like.dtype if dtype is None else dtype).itemsize * math.prod(shape)
    if nbytes < LEAST:
        return like.new_empty(shape, dtype=dtype)
    array = _unused(nbytes)
    if array is None:
        keep = _room_for(nbytes)
        array = np.empty(nbytes, np.uint8) if not huge else _cut(nbytes) if keep else _in_huge_pages(nbytes)
        if keep:
            _kept.setdefault(nbytes, deque()).append(array)
    return like.new_empty(0, dtype=dtype).set_(torch.from_numpy(array).untyped_storage(), 0, shape, _strides(shape))


def _unused(nbytes: int) -> np.ndarray | None:
    queue = _kept.get(nbytes, ())
    for _ in range(len(queue)):
        if not (held := _taken(queue)):
            return None
        free = _references(held) == _UNUSED
        array = held[0] if free else None
        queue.append(held.pop())
        if free:
            return array
    return None


def _cut(nbytes: int) -> np.ndarray:
    """New memory, from a slab for blocks of this size: a huge page of its own for each would be half empty, or not huge."""
    step = -(-nbytes // _PAGE) * _PAGE
    slab = _uncut.pop(nbytes, None)
    if slab is None:
        slab = _in_huge_pages(max(1, SLAB // step) * step)
    if len(slab) > step:
        _uncut[nbytes] = slab[step:]
    return slab[:nbytes]


def _room_for(nbytes: int) -> bool:
    """Whether so much more may be kept, after letting go of what nobody uses if need be."""
    kept = sum(size * len(queue) for size, queue in list(_kept.items()))
    if kept + nbytes <= MOST:
        return True
    _uncut.clear()
    for size, queue in list(_kept.items()):
        for _ in range(len(queue)):
            held = _taken(queue)
            if held and _references(held) != _UNUSED:
                queue.append(held.pop())
    return sum(size * len(queue) for size, queue in list(_kept.items())) + nbytes <= MOST


def _taken(queue: deque[np.ndarray]) -> list[np.ndarray]:
    """The first of the queue, which out of it no other thread can take; nothing if others took them all."""
    try:
        return [queue.popleft()]
    except IndexError:
        return []


def _references(held: list[np.ndarray]) -> int:
    return sys.getrefcount(held[0])


_UNUSED = _references([np.empty(1)])  # versions of Python count differently


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    steps, step = [], 1
    for size in reversed(shape):
        steps.append(step)
        step *= size
    return tuple(reversed(steps))


def _in_huge_pages(nbytes: int) -> np.ndarray:
    """New memory, of huge pages where there are such from its first byte to its last."""
    whole = -(-nbytes // _HUGE_PAGE) * _HUGE_PAGE
    array = np.empty(whole + _HUGE_PAGE, np.uint8)
    start = -array.ctypes.data % _HUGE_PAGE
    if sys.platform == "linux":
        _libc().madvise(ctypes.c_void_p(array.ctypes.data + start), ctypes.c_size_t(whole), _MADV_HUGEPAGE)  # may be refused
    return array[start : start + nbytes]


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
