"""Memory for large results, used again when no tensor looks at it any more.

The C library hands large blocks back to the system, and each new one is touched for the first time page by page: for a
result of 42 MB that is as slow as the scan that fills it, and decoding at 1.2B shapes meets thousands of new pages a token.
So results of LEAST bytes and more come from here. What is kept stays below MOST bytes; what does not fit is ordinary memory.

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
_HUGE_PAGE, _MADV_HUGEPAGE = 2 << 20, 14

_kept: dict[int, deque[np.ndarray]] = {}        # by size; in a queue the one that was handed out longest ago comes first


def empty(like: Tensor, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
    """A new tensor without gaps, of like's type unless another is named; like lies on the CPU."""
    nbytes = (like.dtype if dtype is None else dtype).itemsize * math.prod(shape)
    if nbytes < LEAST:
        return like.new_empty(shape, dtype=dtype)
    array = _unused(nbytes)
    if array is None:
        array = np.empty(nbytes, np.uint8)
        _advise(array)
        if _room_for(nbytes):
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


def _room_for(nbytes: int) -> bool:
    """Whether so much more may be kept, after letting go of what nobody uses if need be."""
    kept = sum(size * len(queue) for size, queue in list(_kept.items()))
    if kept + nbytes <= MOST:
        return True
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


_UNUSED = _references([np.empty(1)])                    # versions of Python count differently


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    steps, step = [], 1
    for size in reversed(shape):
        steps.append(step)
        step *= size
    return tuple(reversed(steps))


def _advise(array: np.ndarray) -> None:
    """Ask for huge pages, where there are such: a five-hundredth of the page faults."""
    if sys.platform == "linux":
        start = -(-array.ctypes.data // _HUGE_PAGE) * _HUGE_PAGE
        length = (array.ctypes.data + array.nbytes - start) // _HUGE_PAGE * _HUGE_PAGE
        if length > 0:
            _libc().madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_HUGEPAGE)     # may be refused


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)
