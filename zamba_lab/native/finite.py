"""Whether all numbers of a tensor are finite, natively (`finite.c`): what looking at every weight of a file waits for."""

import torch
from torch import Tensor

from zamba_lab.native import build
from zamba_lab.native.call import call, is_off

WORK = 0.1  # nanoseconds for an element, about
# The bits of infinity: of what is larger without its sign, some is infinite or NaN.
_INFINITY = {torch.float16: 0x7C00, torch.bfloat16: 0x7F80, torch.float32: 0x7F800000, torch.float64: 0x7FF0000000000000}


def takes(t: Tensor) -> bool:
    return t.dtype in _INFINITY and t.is_cpu and t.is_contiguous() and not is_off() and build.available()


def all_finite(t: Tensor) -> bool:
    """t: one that `takes` says yes to."""
    largest = torch.empty((), dtype=torch.int64)
    call("largest_bits", WORK * t.numel(), t.numel(), t.element_size(), t.detach(), largest)
    return largest.item() < _INFINITY[t.dtype]
