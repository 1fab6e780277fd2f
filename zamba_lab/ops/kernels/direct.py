"""Native calls that go past torch's dispatcher: for decoding, whose work is less than the dispatcher's own.

A torch operator written in Python costs several times what a call by ctypes does, and a token of a small model is a hundred
calls. What the dispatcher is there for, nobody must then want: `unseen()` says so. Functions here take tensors
without gaps and know nothing of autograd.
"""

import ctypes
from functools import cache

import torch
from torch import Tensor
from torch.nn import Parameter

from zamba_lab.ops.kernels import build, call

_LETTERS = {"i": ctypes.c_int64, "d": ctypes.c_double, "p": ctypes.c_void_p}
_PLAIN = (Tensor, Parameter)
MOST_ROWS = 8                   # with more, torch's own forms for many rows are as good


def unseen() -> bool:
    """Whether nobody sees what runs now: no gradients, no compiler, no mode, no vmap, no autocast, kernels not off."""
    return not (torch.is_grad_enabled() or call._off or torch.compiler.is_compiling()
                or torch._C._len_torch_dispatch_stack() or torch._C._len_torch_function_stack()
                or torch._C._functorch.peek_interpreter_stack() is not None
                or torch.is_autocast_enabled("cpu")) and build.available()


def plain(t: Tensor | None) -> bool:
    """Whether this is an ordinary tensor on the CPU without gaps: no subclass, no fake, no meta. None passes."""
    return t is None or (type(t) in _PLAIN and t.is_cpu and t.is_contiguous())


def few(x: Tensor) -> bool:
    """Whether x, (..., d), has at least one row and no more than MOST_ROWS."""
    return 0 < x.numel() <= MOST_ROWS * x.shape[-1]


def serves(x: Tensor) -> bool:
    """Whether what is computed from this tensor may be computed here."""
    return x.dtype in call.COMPUTED and plain(x) and unseen()


@cache
def function(name: str, letters: str):
    """A native function whose arguments are, after the number of threads: i integer, d double, p tensor's address."""
    found = getattr(build.library(), name)
    found.argtypes = [ctypes.c_int64, *(_LETTERS[letter] for letter in letters)]
    found.restype = ctypes.c_int
    return found


def address(t: Tensor | None) -> int | None:
    return None if t is None else t.data_ptr()


def checked(code: int, name: str) -> None:
    """Raise MemoryError if a native function said it found no scratch memory."""
    if code:
        raise MemoryError(f"the native kernel {name} found no memory for its scratch space")
