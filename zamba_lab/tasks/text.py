"""Language modelling on real text: the standard library of Python byte by byte, and what a repeated name costs.

The measure beside the loss is the one of Zoology's study of real text, on names instead of pairs of tokens: the loss of an
identifier's bytes where it comes again in the window, and where it comes for the first time. A model that recalls tells them
apart; one that knows only what Python looks like does not.
"""

from __future__ import annotations

import keyword
import platform
import re
import zlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zamba_lab import corpora
from zamba_lab.tasks.task import IGNORE, Task, rule

START = 256  # the token before each document; the bytes are themselves
NAME = re.compile(rb"[A-Za-z_][A-Za-z_0-9]{2,}")
FAR = 64
KEYWORDS = {word.encode() for word in keyword.kwlist} | {b"self"}


@dataclass(frozen=True, kw_only=True)
class Text(Task):
    """Windows of bytes; at each but the last the next byte is asked. Held out are the files of the validation split.

    No past decides the next byte. `chance` is the share of the commonest byte. There are no published parameters for this text: the
    sizes differ in length alone.
    """

    length: int

    def check(self) -> None:
        rule(self.length >= 2, f"length must be 2 or more: got {self.length}")

    @property
    def vocab_size(self) -> int:
        return 257

    @property
    def answers(self) -> range:
        return range(self.vocab_size)

    @property
    def chance(self) -> float:
        return float(np.bincount(self.tokens).max() / len(self.tokens))

    @property
    def tokens(self) -> np.ndarray:
        """All tokens of the split, (n,) uint16. Not to be written into."""
        return stream("validation" if self.held_out else "train")

    def rows(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        at = rng.integers(len(self.tokens) - self.length, size=(n, 1)) + np.arange(self.length)
        ids = self.tokens[at].astype(np.int64)
        return ids, np.concatenate([ids[:, 1:], np.full((n, 1), IGNORE)], axis=1)

    def kept_back(self, ids: np.ndarray) -> np.ndarray:
        """The files are split already."""
        return np.full(len(ids), self.held_out)

    def slices(self, ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Bytes of names of three letters or more, keywords left out, where the name is new in the window and where it came
        before; without each name's first byte, which says which name comes. The rest is "other". "far": of the repeated, those whose
        name last began more than FAR bytes earlier."""
        kinds = torch.from_numpy(np.stack([name_kinds(row) for row in ids.numpy()]))
        at_next = torch.cat([kinds[:, 1:], torch.zeros_like(kinds[:, :1])], dim=1)  # a byte is predicted one position earlier
        asked = labels != IGNORE
        named = {name: asked & (at_next == k) for k, name in enumerate(("other", "first", "repeated", "far"))}
        return named | {"repeated": named["repeated"] | named["far"]}

    def facts(self) -> dict[str, Any]:
        return super().facts() | {"python": platform.python_version(), "crc32": zlib.crc32(self.tokens.tobytes())}

    def word(self, token: int) -> str:
        return "<s>" if token == START else {10: "⏎", 32: "·"}.get(token) or (chr(token) if 32 < token < 127 else f"x{token:02x}")


def name_kinds(row: np.ndarray) -> np.ndarray:
    """(l,) 1 at the bytes of a name that is new in the row, 2 where it comes again, 3 more than FAR bytes later, 0 elsewhere; never at
    a name's first byte."""
    kinds, seen = np.zeros(len(row), dtype=np.int64), {}
    plain = np.where(row == START, 10, row).astype(np.uint8).tobytes()
    for match in NAME.finditer(plain):
        if match[0] in KEYWORDS or match.start() == 0:  # the window may begin within a name
            continue
        last = seen.get(match[0])
        kinds[match.start() + 1 : match.end()] = 1 if last is None else 3 if match.start() - last > FAR else 2
        seen[match[0]] = match.start()
    return kinds


@lru_cache(maxsize=2)
def stream(split: str) -> np.ndarray:
    """All documents of a split, START before each."""
    texts = corpora.texts(corpora.stdlib_documents(), split)
    parts = [
        part
        for text in texts
        for part in (np.array([START], dtype=np.uint16), np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint16))
    ]
    return np.concatenate(parts)
