"""Calling the native library: which tensors it takes, and how they become pointers."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from zamba_lab.ops.kernels import build

# What is stored -> what is computed in, and the ending of the functions that do so. float16 has no processor's arithmetic
# behind it here and is left to the pure forms.
COMPUTED = {torch.float32: torch.float32, torch.bfloat16: torch.float32, torch.float64: torch.float64}
_SUFFIX = {torch.float32: "_f32", torch.bfloat16: "_bf16", torch.float64: "_f64"}

_off = False


@contextmanager
def off() -> Iterator[None]:
    """Within it the pure PyTorch forms answer: to compare with them, or for second derivatives."""
    global _off
    before, _off = _off, True
    try:
        yield
    finally:
        _off = before


def serves(*tensors: Tensor | None) -> bool:
    """Whether the native kernels take these: strided, on the CPU, not empty, of a type they know.

    What they do not take goes to the pure forms. The arguments are those that are stored (x, B, C ...), of one type.
    """
    first = tensors[0]
    return (not _off and first.device.type == "cpu" and first.dtype in COMPUTED
            and all(t is None or (t.dtype == first.dtype and t.numel() > 0 and t.layout == torch.strided)
                    for t in tensors)
            and build.available())


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


def contiguous(t: Tensor | None) -> Tensor | None:
    return None if t is None else t.contiguous()


def pointer(t: Tensor | None) -> ctypes.c_void_p | None:
    return None if t is None else ctypes.c_void_p(t.data_ptr())


def call(name: str, *arguments: Tensor | int | None) -> None:
    """Run a native function on torch's number of threads. Raises MemoryError if it found no scratch memory."""
    converted = [ctypes.c_int64(a) if isinstance(a, int) else pointer(a) for a in arguments]
    if getattr(build.library(), name)(ctypes.c_int64(torch.get_num_threads()), *converted):
        raise MemoryError(f"the native kernel {name} found no memory for its scratch space")
