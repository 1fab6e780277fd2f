"""What a run reads: named arrays of token ids, each with a share of the windows.

Which windows step k sees is a function of the seed and of k alone, so a run can go on anywhere. Each corpus has its own
epochs and its own order; windows are dealt to the corpora by a fixed rule that keeps every share at every moment of the run,
not by luck: with shares 0.6 and 0.4 the first n windows hold 0.6 n of the first corpus, to within one window.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zamba_lab.train.config import TrainConfig
from zamba_lab.train.labelled import Labelled

REPLAY = 0.6  # share of the first phase's data in the annealing phase, as published
DEAL = 1000  # windows after which the rule of dealing begins again: shares are multiples of 1 / DEAL
PIECE = 1 << 24  # tokens read at once while a corpus is looked through


class Window(NamedTuple):
    """`length` + 1 tokens of one corpus from `start` on."""

    corpus: str
    start: int


class Mixture:
    """Token arrays with shares. Every document in them begins with the start token.

    Args:
        corpora: name -> (n,) ids, in memory or memory-mapped.
        shares: name -> share of the windows, >= 0, together 1; None: in proportion to the numbers of tokens.

    Raises ValueError if a corpus is empty or not an array of integers, or the shares do not fit.
    """

    def __init__(self, corpora: Mapping[str, np.ndarray], shares: Mapping[str, float] | None = None):
        for name, tokens in corpora.items():
            if getattr(tokens, "ndim", None) != 1 or not np.issubdtype(tokens.dtype, np.integer) or not len(tokens):
                got = f"shape {tokens.shape}, {tokens.dtype}" if isinstance(tokens, np.ndarray) else type(tokens).__name__
                raise ValueError(f"a corpus is an array (n,) of integers, n >= 1: {name!r} is {got}")
        total = sum(len(tokens) for tokens in corpora.values())
        shares = {name: len(tokens) / total for name, tokens in corpora.items()} if shares is None else dict(shares)
        if shares.keys() != corpora.keys() or not corpora:
            raise ValueError(f"each corpus has a share: got corpora {sorted(corpora)}, shares of {sorted(shares)}")
        if min(shares.values()) < 0 or abs(sum(shares.values()) - 1) > 1e-6:
            raise ValueError(f"shares must be 0 or more and be 1 together: got {shares}")
        self.corpora = {name: tokens for name, tokens in corpora.items() if shares[name] > 0}
        self.shares = {name: shares[name] for name in self.corpora}
        self._order, self._before = _deal(tuple(self.shares.values()))

    @classmethod
    def of(cls, data: Mixture | Labelled | np.ndarray) -> Mixture | Labelled:
        """A mixture or labelled data as it is, or one array as a mixture of one."""
        return data if isinstance(data, Mixture | Labelled) else cls({"data": data})

    @classmethod
    def annealing(cls, replay: np.ndarray, fresh: np.ndarray, share: float = REPLAY) -> Mixture:
        """The published mixture of the second phase: `share` of what was read before, the rest high-quality text."""
        return cls({"replay": replay, "fresh": fresh}, {"replay": share, "fresh": 1 - share})

    def windows(self, first: int, count: int, length: int, seed: int) -> list[Window]:
        """The windows of number first..first + count - 1 of a run.

        In each epoch of a corpus its array is cut into windows from a new random offset, and each is seen once, in random
        order. Raises ValueError if a corpus is shorter than two windows.
        """
        found = []
        for k in range(first, first + count):
            round_, at = divmod(k, DEAL)
            which = int(self._order[at])
            name = list(self.corpora)[which]
            number = round_ * int(self._before[DEAL, which]) + int(self._before[at, which])
            epoch, place = divmod(number, self.per_epoch(name, length))
            offset, order = _epoch(seed, which, epoch, length, self.per_epoch(name, length))
            found.append(Window(name, offset + int(order[place]) * length))
        return found

    def per_epoch(self, name: str, length: int) -> int:
        """Windows in one epoch of a corpus: one fewer than would fit, for the offset."""
        found = (len(self.corpora[name]) - 1) // length - 1
        if found < 1:
            raise ValueError(
                f"training needs more than 2 * length tokens: got {len(self.corpora[name])} tokens in {name!r}, length={length}"
            )
        return found

    def epochs(self, n_windows: int, length: int) -> dict[str, float]:
        """How often each corpus is seen in the first n windows of a run."""
        rounds, rest = divmod(n_windows, DEAL)
        counts = rounds * self._before[DEAL] + self._before[rest]
        return {name: int(count) / self.per_epoch(name, length) for name, count in zip(self.corpora, counts)}

    def rows(self, windows: list[Window], length: int) -> np.ndarray:
        """(number of windows, length + 1) int64."""
        return np.stack([self.corpora[one.corpus][one.start : one.start + length + 1] for one in windows]).astype(np.int64)

    def step_windows(self, step: int, config: TrainConfig, rank: int = 0, size: int = 1) -> list[Window]:
        """The windows of one step; of `size` processes each takes every size-th, so that together they see what one would."""
        return self.windows(step * config.batch, config.batch, config.length, config.seed)[rank::size]

    def batch(self, step: int, config: TrainConfig, rank: int = 0, size: int = 1) -> tuple[Tensor, Tensor]:
        """The inputs of one step and, as targets, the ids one position later; a function of its arguments alone."""
        rows = torch.from_numpy(self.rows(self.step_windows(step, config, rank, size), config.length))
        return rows[:, :-1], rows[:, 1:]

    def check(self, config: TrainConfig) -> None:
        """Raise ValueError if a corpus is not long enough for a window, or all of them for the schedule."""
        for name, epochs in self.epochs(config.steps * config.batch, config.length).items():
            if config.max_epochs is not None and epochs > config.max_epochs:
                fits = config.steps * config.max_epochs / epochs
                raise ValueError(
                    f"the run is longer than its data: {config.steps} steps of {config.batch} windows of {config.length} "
                    f"tokens are {epochs:.2f} epochs of {name!r} ({len(self.corpora[name]):,} tokens, share "
                    f"{self.shares[name]:g}), max_epochs={config.max_epochs:g}: at most {int(fits)} steps, or allow "
                    f"max_epochs={np.ceil(epochs):g}"
                )

    def place(self, row: int, step: int, config: TrainConfig, bos_id: int | None, rank: int = 0, size: int = 1) -> str:
        """Where a row of a step's batch is from. It reads the corpus up to there."""
        return self._place(self.step_windows(step, config, rank, size)[row], config.length, bos_id)

    def _place(self, window: Window, length: int, bos_id: int | None) -> str:
        tokens, end = self.corpora[window.corpus], window.start + length
        text = f"{window.corpus!r} tokens {window.start}..{end}"
        if bos_id is None:
            return text
        before = sum(int(np.count_nonzero(piece == bos_id)) for piece in pieces(tokens[: window.start + 1]))
        inside = int(np.count_nonzero(np.asarray(tokens[window.start + 1 : end]) == bos_id))
        first, last = max(0, before - 1), max(0, before + inside - 1)
        return f"{text} (document {first})" if first == last else f"{text} (documents {first}..{last})"

    def facts(self) -> dict[str, object]:
        """What the mixture is, as name -> value: two with the same facts hold the same tokens."""
        found: dict[str, object] = {}
        for name, tokens in self.corpora.items():
            crc = 0
            for piece in pieces(tokens):
                crc = zlib.crc32(np.ascontiguousarray(piece), crc)
            found |= {f"{name}.tokens": len(tokens), f"{name}.crc32": crc, f"{name}.share": self.shares[name]}
        return found


def pieces(tokens: np.ndarray) -> Iterator[np.ndarray]:
    """The array piece by piece, so that one on disk is never in memory as a whole."""
    for at in range(0, len(tokens), PIECE):
        yield tokens[at : at + PIECE]


@lru_cache(maxsize=64)
def _deal(shares: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The corpus of each of DEAL windows, (DEAL,), and how many each corpus had before each, (DEAL + 1, corpora).

    A window goes to the corpus that is furthest behind its share. The shares' parts of DEAL are rounded to whole windows by
    the largest remainders, so that they come out exactly at the end.
    """
    exact = np.array(shares) * DEAL
    quota = np.floor(exact + 1e-9).astype(int)
    quota[np.argsort(quota - exact, kind="stable")[: DEAL - quota.sum()]] += 1
    if not quota.all():
        raise ValueError(f"a share must be 0 or at least 1 / {DEAL}: got {shares}")
    order, before = np.zeros(DEAL, dtype=int), np.zeros((DEAL + 1, len(shares)), dtype=int)
    for k in range(DEAL):
        order[k] = np.argmax(quota * (k + 1) / DEAL - before[k])
        before[k + 1] = before[k]
        before[k + 1, order[k]] += 1
    return order, before


@lru_cache(maxsize=16)
def _epoch(seed: int, which: int, epoch: int, length: int, per_epoch: int) -> tuple[int, np.ndarray]:
    random = np.random.default_rng((seed, which, epoch))
    kind = np.uint32 if per_epoch < 2**32 else np.uint64
    return int(random.integers(length)), random.permutation(per_epoch).astype(kind)
