"""Calling the native library: how tensors become pointers, and on how many threads."""

import ctypes

import torch
from torch import Tensor

from zamba_lab.native import build

# What is stored -> what is computed in, and the ending of the functions that do so. No processor here computes in float16.
COMPUTED = {torch.float32: torch.float32, torch.bfloat16: torch.float32, torch.float64: torch.float64}
_SUFFIX = {torch.float32: "_f32", torch.bfloat16: "_bf16", torch.float64: "_f64"}

WORTH_A_THREAD = 20_000  # nanoseconds of work


def call(name: str, work: float, *arguments: Tensor | int | float | None) -> None:
    """Run a native function on torch's number of threads, or fewer. Raises MemoryError if it found no scratch memory.

    work: about how many nanoseconds one thread takes. Waking another for less than WORTH_A_THREAD costs more than it saves.
    arguments: tensors whose memory, None, int64 and double, as the C function has them; their sizes are the caller's to check.
    """
    threads = max(1, min(torch.get_num_threads(), int(work / WORTH_A_THREAD)))
    converted = [_CONVERT[type(a)](a) for a in arguments]
    if getattr(build.library(), name)(ctypes.c_int64(threads), *converted):
        raise MemoryError(f"the native function {name} found no memory for its scratch space")


def suffix(t: Tensor) -> str:
    """The ending of the functions for this tensor's dtype."""
    return _SUFFIX[t.dtype]


def as_computed(x: Tensor, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """Tensors in the type that x is computed in, without gaps; None stays None."""
    return tuple(None if t is None else t.to(COMPUTED[x.dtype]).contiguous() for t in tensors)


def rows(t: Tensor) -> Tensor:
    """The tensor itself if all axes after the first two lie without gaps, else a copy."""
    stride = 1
    for size, step in zip(reversed(t.shape[2:]), reversed(t.stride()[2:])):
        if size > 1 and step != stride:
            return t.contiguous()
        stride *= size
    return t


def steps(t: Tensor) -> tuple[Tensor, int, int]:
    """A tensor with the strides of its first two axes, as the C functions take it."""
    return t, t.stride(0), t.stride(1)


def filled(t: Tensor | None) -> Tensor | None:
    """The tensor without gaps, or None."""
    return None if t is None else t.contiguous()


def _pointer(t: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(t.data_ptr())


_CONVERT = {int: ctypes.c_int64, float: ctypes.c_double, type(None): lambda _: None, Tensor: _pointer, torch.nn.Parameter: _pointer}
