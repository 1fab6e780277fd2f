"""Calling the native library: which tensors it takes, and how they become pointers."""

import ctypes
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor

from zamba_lab.native import build

# What is stored -> what is computed in, and the ending of the functions that do so. float16 has no processor's arithmetic
# behind it here and is left to the pure forms.
COMPUTED = {torch.float32: torch.float32, torch.bfloat16: torch.float32, torch.float64: torch.float64}
_SUFFIX = {torch.float32: "_f32", torch.bfloat16: "_bf16", torch.float64: "_f64"}


WORTH_A_THREAD = 20_000  # nanoseconds of work

_off = 0  # how many `off()` are open, in whatever threads
_counting = threading.Lock()


@contextmanager
def off() -> Iterator[None]:
    """Within it the pure PyTorch forms answer, in every thread: to compare with them, or for second derivatives."""
    _count(1)
    try:
        yield
    finally:
        _count(-1)


def _count(more: int) -> None:
    global _off
    with _counting:
        _off += more


def is_off() -> bool:
    """Whether we are within `off()`."""
    return _off > 0


def serves(*tensors: Tensor | None) -> bool:
    """Whether the native kernels take these: strided, on the CPU, not empty, of a type they know.

    What they do not take goes to the pure forms, float16 with one warning. The arguments are those that are stored (x, B,
    C ...), of one type.
    """
    first = tensors[0]
    if first.dtype == torch.float16 and not _off and first.device.type == "cpu" and build.available():
        _say_once(
            "float16 on a CPU goes through the pure PyTorch forms, correctly but several times slower: the native kernels "
            "take float32, bfloat16 and float64"
        )
    return (
        not _off
        and first.device.type == "cpu"
        and first.dtype in COMPUTED
        and all(t is None or (t.dtype == first.dtype and t.numel() > 0 and t.layout == torch.strided) for t in tensors)
        and build.available()
    )


@cache
def _say_once(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=3)


def suffix(t: Tensor) -> str:
    return _SUFFIX[t.dtype]


def rows(t: Tensor) -> Tensor:
    """The tensor itself if all axes after the first two lie without gaps, else a copy."""
    stride = 1
    for size, step in zip(reversed(t.shape[2:]), reversed(t.stride()[2:])):
        if size > 1 and step != stride:
            return t.contiguous()
        stride *= size
    return t


def steps(t: Tensor) -> tuple[Tensor, int, int]:
    """A tensor with the strides of its first two axes, as the kernels take it."""
    return t, t.stride(0), t.stride(1)


def filled(t: Tensor | None) -> Tensor | None:
    """The tensor without gaps, or None."""
    return None if t is None else t.contiguous()


def carried(name: str, t: Tensor | None, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
    """What an earlier call left to go on from, of this type; None stays None.

    Raises ValueError if its shape is another: a kernel is given an address and would read past its end.
    """
    if t is None:
        return None
    if t.shape != shape:
        raise ValueError(f"the {name} to go on from must have shape {tuple(shape)}, as this layer and batch need it: got {tuple(t.shape)}")
    return t if t.dtype == dtype else t.to(dtype)


def call(name: str, work: float, *arguments: Tensor | int | float | None) -> None:
    """Run a native function on torch's number of threads, or fewer. Raises MemoryError if it found no scratch memory.

    work: about how many nanoseconds one thread takes. Waking another for less than WORTH_A_THREAD costs more than it saves.
    """
    threads = max(1, min(torch.get_num_threads(), int(work / WORTH_A_THREAD)))
    converted = [_CONVERT[type(a)](a) for a in arguments]
    if getattr(build.library(), name)(ctypes.c_int64(threads), *converted):
        raise MemoryError(f"the native kernel {name} found no memory for its scratch space")


def _pointer(t: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(t.data_ptr())


_CONVERT = {int: ctypes.c_int64, float: ctypes.c_double, type(None): lambda _: None, Tensor: _pointer, torch.nn.Parameter: _pointer}
