"""What a run reads: a `Mixture` of token arrays, each with a share of the windows, or `Labelled` batches made on demand.

Which windows step k sees is a function of the seed and of k alone, so a run can go on anywhere. Each corpus has its own
epochs and its own order; windows are dealt to the corpora by a fixed rule that keeps every share at every moment of the run,
not by luck: with shares 0.6 and 0.4 the first n windows hold 0.6 n of the first corpus, to within one window.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from zamba_lab.corpora import Corpus
from zamba_lab.tokenizer import Tokenizer
from zamba_lab.train.config import TrainConfig

REPLAY = 0.6  # share of the first phase's data in the annealing phase, as published
CYCLE = 1000  # windows after which the order of the corpora repeats: shares are multiples of 1 / CYCLE
CHUNK = 1 << 24  # tokens read at a time while a corpus is scanned


class Window(NamedTuple):
    """`length` + 1 tokens of one corpus from `start` on."""

    corpus: str
    start: int


class Mixture:
    """Token arrays with shares. Every document in them begins with the start token.

    Args:
        corpora: name -> a `Corpus`, whose training split is read, or (n,) ids, in memory or memory-mapped.
        shares: name -> share of the windows, >= 0, together 1; None: in proportion to the numbers of tokens.

    `tokenizers` has those of the corpora that know theirs, by name.

    Raises ValueError if a corpus is empty or not an array of integers, two were made by different tokenizers, or the shares do not fit.
    """

    def __init__(self, corpora: Mapping[str, np.ndarray | Corpus], shares: Mapping[str, float] | None = None):
        self.tokenizers: dict[str, Tokenizer] = {name: data.tokenizer for name, data in corpora.items() if isinstance(data, Corpus)}
        hashes = {name: tokenizer.pieces_hash[:12] for name, tokenizer in self.tokenizers.items()}
        if len(set(hashes.values())) > 1:
            raise ValueError(
                "corpora of one run must be made by one tokenizer (zamba-lab corpus ... --tokenizer FOLDER): "
                f"the hashes of their pieces are {hashes}"
            )
        arrays = {name: data.packed("train").tokens if isinstance(data, Corpus) else data for name, data in corpora.items()}
        for name, tokens in arrays.items():
            if not isinstance(tokens, np.ndarray) or tokens.ndim != 1 or tokens.dtype.kind not in "iu" or not len(tokens):
                got = f"shape {tokens.shape}, {tokens.dtype}" if isinstance(tokens, np.ndarray) else f"a {type(tokens).__name__}"
                raise ValueError(f"a corpus is a numpy array (n,) of integers, n >= 1: {name!r} is {got}")
        total = sum(map(len, arrays.values()))
        shares = {name: len(tokens) / total for name, tokens in arrays.items()} if shares is None else dict(shares)
        if shares.keys() != arrays.keys() or not arrays:
            raise ValueError(f"each corpus has a share: got corpora {sorted(arrays)}, shares of {sorted(shares)}")
        if not all(share >= 0 for share in shares.values()) or not abs(sum(shares.values()) - 1) <= 1e-6:
            raise ValueError(f"shares must be 0 or more and be 1 together: got {shares}")
        self.corpora = {name: tokens for name, tokens in arrays.items() if shares[name] > 0}
        self.shares = {name: shares[name] for name in self.corpora}
        self._order, self._before = _deal(tuple(self.shares.values()))

    @classmethod
    def of(cls, data: Mixture | Labelled | Corpus | np.ndarray) -> Mixture | Labelled:
        """A mixture or labelled data as it is; one corpus or array as a mixture of one, named "data"."""
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
        windows, names = [], list(self.corpora)
        for k in range(first, first + count):
            cycle, at = divmod(k, CYCLE)
            corpus = int(self._order[at])
            number = cycle * int(self._before[CYCLE, corpus]) + int(self._before[at, corpus])
            per_epoch = self.per_epoch(names[corpus], length)
            epoch, rank = divmod(number, per_epoch)
            offset, order = _epoch(seed, corpus, epoch, length, per_epoch)
            windows.append(Window(names[corpus], offset + int(order[rank]) * length))
        return windows

    def per_epoch(self, name: str, length: int) -> int:
        """Windows in one epoch of a corpus: one fewer than would fit, for the offset."""
        count = (len(self.corpora[name]) - 1) // length - 1
        if count < 1:
            raise ValueError(
                f"training needs more than 2 * length tokens: got {len(self.corpora[name])} tokens in {name!r}, length={length}"
            )
        return count

    def epochs(self, n_windows: int, length: int) -> dict[str, float]:
        """How often each corpus is seen in the first n windows of a run."""
        cycles, rest = divmod(n_windows, CYCLE)
        counts = cycles * self._before[CYCLE] + self._before[rest]
        return {name: int(count) / self.per_epoch(name, length) for name, count in zip(self.corpora, counts)}

    def rows(self, windows: list[Window], length: int) -> np.ndarray:
        """(number of windows, length + 1) int64."""
        return np.stack([self.corpora[name][start : start + length + 1] for name, start in windows]).astype(np.int64)

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

    def source(self, row: int, step: int, config: TrainConfig, bos_id: int | None, rank: int = 0, size: int = 1) -> str:
        """Where a row of a step's batch is from, in words. It reads the corpus up to there."""
        window = self.step_windows(step, config, rank, size)[row]
        tokens, end = self.corpora[window.corpus], window.start + config.length
        text = f"{window.corpus!r} tokens {window.start}..{end}"
        if bos_id is None:
            return text
        before = sum(int(np.count_nonzero(chunk == bos_id)) for chunk in chunks(tokens[: window.start + 1]))
        inside = int(np.count_nonzero(np.asarray(tokens[window.start + 1 : end]) == bos_id))
        first, last = max(0, before - 1), max(0, before + inside - 1)
        return f"{text} (document {first})" if first == last else f"{text} (documents {first}..{last})"

    def facts(self) -> dict[str, object]:
        """What the mixture is, as name -> value: two with the same facts hold the same tokens."""
        facts: dict[str, object] = {}
        for name, tokens in self.corpora.items():
            crc = 0
            for chunk in chunks(tokens):
                crc = zlib.crc32(np.ascontiguousarray(chunk), crc)
            facts |= {f"{name}.tokens": len(tokens), f"{name}.crc32": crc, f"{name}.share": self.shares[name]}
        return facts


def chunks(tokens: np.ndarray) -> Iterator[np.ndarray]:
    """The array in parts, so that one on disk is never in memory as a whole."""
    for start in range(0, len(tokens), CHUNK):
        yield tokens[start : start + CHUNK]


@dataclass(frozen=True)
class Labelled:
    """Batches that are made on demand and bring their own labels: a synthetic task, not a text.

    make: (seed, step, n) -> ids (n, l) and labels (n, l), int64, -100 where nothing is asked; a function of its arguments
    alone. labels[:, t] is what is to be predicted at position t. identity: name -> value, the same for the same data only.
    """

    make: Callable[[int, int, int], tuple[Tensor, Tensor]]
    length: int
    identity: Mapping[str, object]
    corpora: Mapping[str, np.ndarray] = field(default_factory=dict)  # none: there is no array to scan
    tokenizers: Mapping[str, Tokenizer] = field(default_factory=dict)

    def batch(self, step: int, config: TrainConfig, rank: int = 0, size: int = 1) -> tuple[Tensor, Tensor]:
        """ids and labels of one step, (b, l) each; of `size` processes each takes every size-th row."""
        ids, labels = self.make(config.seed, step, config.batch)
        if not ids.shape == labels.shape == (config.batch, self.length) or not ids.dtype == labels.dtype == torch.int64:
            raise ValueError(
                f"make must give ids and labels of shape {(config.batch, self.length)}, int64: got {tuple(ids.shape)}, {ids.dtype} "
                f"and {tuple(labels.shape)}, {labels.dtype}"
            )
        return ids[rank::size], labels[rank::size]

    def check(self, config: TrainConfig) -> None:
        """Raise ValueError if a run with these arguments breaks a rule."""
        if config.length != self.length:
            raise ValueError(f"labelled data has its own length: got length={config.length}, the data's is {self.length}")

    def source(self, row: int, step: int, config: TrainConfig, bos_id: int | None, rank: int = 0, size: int = 1) -> str:
        """Where a row of a step's batch is from, in words."""
        return f"sequence {range(config.batch)[rank::size][row]} of step {step + 1}"

    def facts(self) -> dict[str, object]:
        return dict(self.identity)


@lru_cache(maxsize=64)
def _deal(shares: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The corpus of each of CYCLE windows, (CYCLE,), and how many each corpus had before each, (CYCLE + 1, corpora).

    A window goes to the corpus that is furthest behind its share. The shares' parts of CYCLE are rounded to whole windows by
    the largest remainders, so that they come out exactly at the end.
    """
    exact = np.array(shares) * CYCLE
    quota = np.floor(exact + 1e-9).astype(int)
    quota[np.argsort(quota - exact, kind="stable")[: CYCLE - quota.sum()]] += 1
    if not quota.all():
        raise ValueError(f"a share must be 0 or at least 1 / {CYCLE}: got {shares}")
    order, before = np.zeros(CYCLE, dtype=int), np.zeros((CYCLE + 1, len(shares)), dtype=int)
    for k in range(CYCLE):
        order[k] = np.argmax(quota * (k + 1) / CYCLE - before[k])
        before[k + 1] = before[k]
        before[k + 1, order[k]] += 1
    return order, before


@lru_cache(maxsize=16)
def _epoch(seed: int, corpus: int, epoch: int, length: int, per_epoch: int) -> tuple[int, np.ndarray]:
    random = np.random.default_rng((seed, corpus, epoch))
    kind = np.uint32 if per_epoch < 2**32 else np.uint64
    return int(random.integers(length)), random.permutation(per_epoch).astype(kind)
