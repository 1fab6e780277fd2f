"""Native calls that go past torch's dispatcher: for decoding, whose work is less than the dispatcher's own.

A torch operator written in Python costs several times what a call by ctypes does, and a token of a small model is a hundred
calls. What the dispatcher is there for, nobody must then want: `unseen()` says so. Functions here take tensors
without gaps and know nothing of autograd. The calls of a token can be recorded and made again all at once: `tape.py`.
"""

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from zamba_lab.native import build, call, memory

# What an argument is. i: an integer; d: a number; p, o, u: a tensor that is read, written, read and written, or None. l, r: an
# integer too, but another one for each token: how many positions of the tensors under u count, and how many they have.
LETTERS = {
    "i": ctypes.c_int64,
    "l": ctypes.c_int64,
    "r": ctypes.c_int64,
    "d": ctypes.c_double,
    "p": ctypes.c_void_p,
    "o": ctypes.c_void_p,
    "u": ctypes.c_void_p,
}
_PLAIN = (Tensor, Parameter)
MOST_ROWS = 8  # with more, torch's own forms for many rows are as good


def unseen() -> bool:
    """Whether nobody sees what runs now: no gradients, either way, no compiler, no mode, no vmap, no autocast, kernels not off."""
    return (
        not (
            torch.is_grad_enabled()
            or forward_ad._current_level >= 0
            or call._off
            or torch.compiler.is_compiling()
            or torch._C._len_torch_dispatch_stack()
            or torch._C._len_torch_function_stack()
            or torch._C._functorch.peek_interpreter_stack() is not None
            or torch.is_autocast_enabled("cpu")
        )
        and build.available()
    )


def ordinary(t: Tensor) -> bool:
    """Whether this is a tensor on the CPU and nothing more: no subclass, no fake, no meta."""
    return type(t) in _PLAIN and t.is_cpu


def plain(t: Tensor | None) -> bool:
    """Whether this is an ordinary tensor without gaps. None passes."""
    return t is None or (ordinary(t) and t.is_contiguous())


def bare(*arguments) -> bool:
    """Whether an operator's plain function does as well as the operator: nobody sees what runs, no profiler counts it, and
    tensors are ordinary ones on the CPU, with or without gaps.

    An operator's way through torch is several hundred instructions of Python more, and with a large model they come from
    memory every time: between two layers its weights have passed through the caches.
    """
    return unseen() and not torch._C._autograd._profiler_enabled() and all(not isinstance(t, Tensor) or ordinary(t) for t in arguments)


def few(x: Tensor) -> bool:
    """Whether x, (..., d), has at least one row and no more than MOST_ROWS."""
    return 0 < x.numel() <= MOST_ROWS * x.shape[-1]


def large(x: Tensor) -> bool:
    """Whether nobody sees what runs, and a result of x's size is worth writing where an earlier one was (`memory.empty`)."""
    return x.nbytes >= memory.LEAST and plain(x) and unseen()


def serves(x: Tensor) -> bool:
    """Whether what is computed from this tensor may be computed here."""
    return x.dtype in call.COMPUTED and plain(x) and unseen()


class _Recording(threading.local):
    calls: list | None = None  # of this thread


_recording = _Recording()


@contextmanager
def recorded() -> Iterator[list[tuple[str, str, tuple]]]:
    """Collects the calls made within it, as (name, letters, arguments). The first argument is the number of threads."""
    before, _recording.calls = _recording.calls, []
    try:
        yield _recording.calls
    finally:
        _recording.calls = before


def run(name: str, letters: str, *arguments: int | float | Tensor | None) -> None:
    """Call a native function on torch's number of threads, or on one if it takes none of its own.

    letters: one of LETTERS for each argument. Raises MemoryError if the function found no scratch memory.
    """
    arguments = (torch.get_num_threads(), *arguments)
    if _function(name, letters)(*[a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]):
        raise MemoryError(f"the native kernel {name} found no memory for its scratch space")
    if _recording.calls is not None:
        _recording.calls.append((name, "i" + letters, arguments))


@cache
def _function(name: str, letters: str):
    found = getattr(build.library(), name)
    found.argtypes = [ctypes.c_int64, *(LETTERS[letter] for letter in letters)]
    found.restype = ctypes.c_int
    return found
