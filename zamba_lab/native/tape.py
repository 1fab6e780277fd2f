"""A token's native calls as one: recorded once, then made again with other inputs (`run_tape` in `step.c`).

What the calls pass among themselves stays where it was when they were recorded. What comes in and goes out lies elsewhere
every time: each such place is a *slot*, and to play the tape is to fill the slots. Weights are read where they are.
"""

import ctypes
import struct
import threading
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from zamba_lab.native import build

Calls = Sequence[tuple[str, str, tuple]]


class NotTaped(ValueError):
    """The calls are not the whole of a computation: something else, torch most likely, had a part in it."""


class Tape:
    """Calls as `direct.recorded` gives them, ready to be made again.

    Args:
        calls: the calls.
        inputs: tensors that will be others the next time.
        outputs: tensors that the calls wrote and that will be others the next time.
        numbers: for a buffer among the inputs that grows, which slots its integers `l` and `r` have: address -> {letter: slot}.
        weights: what the calls may read besides.

    Slots are numbered as inputs, then outputs, then those of `numbers`.

    Raises NotTaped if a call reads a tensor that is none of these, nor written by a call before it, or if no call wrote
    an output.
    """

    def __init__(
        self,
        calls: Calls,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
        numbers: Mapping[int, Mapping[str, int]],
        weights: Iterable[Tensor],
    ):
        slots = {t.data_ptr(): k for k, t in enumerate([*inputs, *outputs])}
        fixed, given = {_memory(t) for t in weights}, {_memory(t) for t in inputs}
        made: set[int] = set()
        words: list[int] = []
        places: list[tuple[int, int]] = []  # (where in the words, slot)
        starts, self._held = [], []
        for name, letters, arguments in calls:
            starts.append(len(words))
            owner = next((a.data_ptr() for letter, a in zip(letters, arguments) if letter == "u"), None)
            for letter, argument in zip(letters, arguments):
                if letter in "lr":
                    places.append((len(words), numbers[owner][letter]))
                elif isinstance(argument, Tensor):
                    at = slots.get(argument.data_ptr())
                    if at is not None:
                        places.append((len(words), at))
                    elif letter == "o":
                        self._held.append(argument)
                    elif _memory(argument) not in (made if _memory(argument) in given else made | fixed):
                        raise NotTaped(f"{name} reads a tensor of shape {tuple(argument.shape)} that no call before it wrote")
                    if letter == "o":
                        made.add(_memory(argument))
                words.append(_word(letter, argument))
        if any(_memory(t) not in made for t in outputs):
            raise NotTaped("the calls do not write everything that is to come out")
        self._words = np.array(words, np.int64)
        self._places, self._slots = (np.array(column, np.int64) for column in zip(*places))
        self._starts = np.array(starts, np.int64)
        self._functions = np.array([_address_of(name) for name, _, _ in calls], np.uint64)
        self._run = build.library().run_tape
        self._run.argtypes = [ctypes.c_int64, ctypes.c_int64] + 3 * [ctypes.c_void_p]
        self._arguments = (1, len(calls), *(a.ctypes.data for a in (self._functions, self._starts, self._words)))
        self.lock = threading.Lock()  # what lies between the calls is one thread's at a time

    def play(self, slots: list[int]) -> None:
        """Make the calls again, by who holds `lock`. slots: addresses and integers.

        Raises MemoryError if a call found no scratch memory.
        """
        self._words[self._places] = np.array(slots, np.int64)[self._slots]
        if self._run(*self._arguments):
            raise MemoryError("a native kernel found no memory for its scratch space")


def _memory(t: Tensor) -> int:
    return t.untyped_storage().data_ptr()


def _word(letter: str, argument: int | float | Tensor | None) -> int:
    """The 64 bits of an argument, as an integer. The letter says what they are read as: a number may be given as an int."""
    if letter == "d":
        return struct.unpack("q", struct.pack("d", argument))[0]
    if isinstance(argument, Tensor):
        return argument.data_ptr()
    return int(argument or 0)


def _address_of(name: str) -> int:
    """Of the form of a function that takes slots: norm_step_taped_f32 for norm_step_f32."""
    kind, _, stored = name.rpartition("_")
    return ctypes.cast(getattr(build.library(), f"{kind}_taped_{stored}"), ctypes.c_void_p).value
