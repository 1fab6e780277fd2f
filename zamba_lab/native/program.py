"""Native calls listed once and made many times: all of a token's work behind one call from Python (`run_program` in `step.c`)."""

import ctypes
import struct

import numpy as np
import torch
from torch import Tensor

from zamba_lab.native import build


class Program:
    """A list of native calls. Buffers, weights and results stay where they are; what the calls read there may change.

        program = Program()
        at = program.add("norm_step", "_f32", rows, d, 1e-5, x, weight, y)
        program.run()

    Arguments are 64-bit words: a tensor is its address, an int and a float are two different things, None is no tensor. The first
    argument of every native function, the number of threads, is torch's at the time of `add`.
    """

    def __init__(self):
        self.names: list[str] = []
        self._words: list[int] = []
        self._starts: list[int] = []
        self._held: list[Tensor] = []  # so that their memory stays theirs
        self._arrays: tuple[np.ndarray, ...] | None = None

    def add(self, name: str, suffix: str, *arguments: int | float | Tensor | None) -> int:
        """Append a call of a function that `step.c` or `gemv.c` defines; where its arguments begin among the words."""
        self.names.append(f"{name}_packed{suffix}")
        self._starts.append(len(self._words))
        self._words.append(torch.get_num_threads())
        self._words.extend(map(self._word, arguments))
        self._arrays = None
        return self._starts[-1] + 1

    def set(self, places: np.ndarray, value: int) -> None:
        """Change integers among the words. places: indices of words."""
        self._ready()[2][places] = value

    def run(self, first: int = 0, count: int | None = None) -> None:
        """Make the calls, or `count` of them from the one numbered `first`. Raises MemoryError if one found no scratch memory."""
        functions, starts, words = self._ready()
        count = len(functions) - first if count is None else count
        addresses = (ctypes.c_void_p(array.ctypes.data + 8 * skip) for array, skip in ((functions, first), (starts, first), (words, 0)))
        if build.library().run_program(ctypes.c_int64(1), ctypes.c_int64(count), *addresses):
            raise MemoryError("a native kernel found no memory for its scratch space")

    def _word(self, argument: int | float | Tensor | None) -> int:
        if isinstance(argument, Tensor):
            self._held.append(argument)
            return argument.data_ptr()
        return struct.unpack("q", struct.pack("d", argument))[0] if isinstance(argument, float) else int(argument or 0)

    def _ready(self) -> tuple[np.ndarray, ...]:
        """Addresses of the functions, where each one's words begin, and the words."""
        if self._arrays is None:
            library = build.library()
            functions = [ctypes.cast(getattr(library, f"{name}"), ctypes.c_void_p).value for name in self.names]
            self._arrays = tuple(np.array(a, t) for a, t in ((functions, np.uint64), (self._starts, np.int64), (self._words, np.int64)))
        return self._arrays
