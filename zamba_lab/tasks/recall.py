"""Say what followed a key: associative recall and its variants, induction, a needle in a haystack.

Layouts follow the public code of Zoology (Arora et al. 2023, arXiv 2312.04927; `zoology/data`), whose gap law, key and value
ranges these are. One thing differs: there the keys stand in the query slots in the order in which the slots were drawn, and
near slots are drawn first, so the place of a query betrays its key; here the keys are dealt to the slots at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import numpy as np
from torch import Tensor

from zamba_lab.tasks.task import IGNORE, Task, distinct, power_law_slots, rule

GAP_POWER = 0.01  # Zoology's: queries mostly soon after the pairs, some late


@dataclass(frozen=True, kw_only=True)
class MQAR(Task):
    """Multi-query associative recall: `kv` pairs, then each key again at a random place; at it the value is asked.

    Token 0 is filler, keys are 1..v/2 - 1, values v/2..v - 1. Zoology's figure 2 has vocab_size 8192 with (length, kv) =
    (64, 4), (128, 8), (256, 16) and (512, 64): `paper` is the last.
    """

    vocab_size: int
    length: int
    kv: int

    def check(self) -> None:
        rule(1 <= self.kv < self.vocab_size // 2, f"kv must be in 1..vocab_size / 2 - 1: got {self.kv}, vocab_size {self.vocab_size}")
        rule(4 * self.kv <= self.length, f"pairs and queries take 4 * kv tokens: got kv={self.kv}, length={self.length}")

    @property
    def answers(self) -> range:
        return range(self.vocab_size // 2, self.vocab_size)

    @property
    def plateau(self) -> float:
        return 1 / self.kv

    def rows(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        keys = distinct(rng, n, self.kv, range(1, self.vocab_size // 2))
        return self.pairs_and_queries(rng, keys, keys, distinct(rng, n, self.kv, self.answers), self.kv)

    def pairs_and_queries(
        self, rng: np.random.Generator, shown: np.ndarray, keys: np.ndarray, values: np.ndarray, last: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pairs of `shown` with `values`, then a query for each of `keys`; its answer is the value of its last pair.

        shown, values: (n, pairs). keys: (n, kv), the first kv of shown. last: pairs, of which those from kv on are updates.
        """
        n, start = len(keys), 2 * last
        ids, labels = np.zeros((n, self.length), dtype=np.int64), np.full((n, self.length), IGNORE)
        ids[:, 0:start:2], ids[:, 1:start:2] = shown, values
        at = start + 2 * power_law_slots(rng, n, self.kv, (self.length - start) // 2, GAP_POWER)
        same = shown[:, None, :] == keys[:, :, None]  # (n, kv, pairs)
        final = last - 1 - same[:, :, ::-1].argmax(2)
        np.put_along_axis(ids, at, keys, axis=1)
        np.put_along_axis(labels, at, np.take_along_axis(values, final, axis=1), axis=1)
        return ids, labels

    def word(self, token: int) -> str:
        half = self.vocab_size // 2
        return "·" if token == 0 else f"k{token}" if token < half else f"v{token - half}"


@dataclass(frozen=True, kw_only=True)
class MixedMQAR(MQAR):
    """MQAR with `least` pairs in a sequence, or twice as many, and so on up to `kv`: as many sequences of each.

    Zoology trains on such a mixture to draw recall as a curve over pairs (arXiv 2402.18668), with a length for each number of pairs; here
    all have one length.
    """

    least: int

    def check(self) -> None:
        super().check()
        rule(1 <= self.least <= self.kv, f"least must be in 1..kv: got {self.least}, kv {self.kv}")

    @property
    def counts(self) -> tuple[int, ...]:
        """The numbers of pairs that there are."""
        return tuple(self.least << k for k in range((self.kv // self.least).bit_length()))

    @property
    def plateau(self) -> float:
        return len(self.counts) / sum(self.counts)  # of all questions: sequences of more pairs ask more

    def rows(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        ids, labels = np.empty((2, n, self.length), dtype=np.int64)
        for k, count in enumerate(self.counts):
            alone = MQAR(name=self.name, size=self.size, vocab_size=self.vocab_size, length=self.length, kv=count)
            ids[k :: len(self.counts)], labels[k :: len(self.counts)] = alone.rows(rng, len(range(k, n, len(self.counts))))
        return ids, labels


@dataclass(frozen=True, kw_only=True)
class ForgettingMQAR(MQAR):
    """MQAR where `updates` of the keys are shown with a second, other value before the queries: the last one counts.

    After Zoology's `forgetting_mqar.py` (8 pairs, 4 updates by default, which `paper` takes, with figure 2's vocabulary).
    """

    updates: int

    def check(self) -> None:
        super().check()
        rule(0 <= self.updates <= self.kv, f"updates must be in 0..kv: got {self.updates}, kv {self.kv}")
        rule(
            2 * (2 * self.kv + self.updates) <= self.length and self.kv + self.updates <= len(self.answers),
            f"pairs, updates and queries take 4 * kv + 2 * updates tokens, each value another: got kv={self.kv}, "
            f"updates={self.updates}, length={self.length}, {len(self.answers)} values",
        )

    @property
    def plateau(self) -> float:
        return 1 / (self.kv + self.updates)

    @property
    def shortcut(self) -> float:
        """The value shown last is never out of date."""
        return 1 / self.kv

    def rows(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        keys = distinct(rng, n, self.kv, range(1, self.vocab_size // 2))
        again = np.take_along_axis(keys, distinct(rng, n, self.updates, range(self.kv)), axis=1)
        shown = np.concatenate([keys, again], axis=1)
        return self.pairs_and_queries(rng, shown, keys, distinct(rng, n, shown.shape[1], self.answers), shown.shape[1])

    def slices(self, ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Answers whose key was shown twice, and once."""
        shown = ids[:, 0 : 2 * (self.kv + self.updates) : 2]
        twice = (ids[:, :, None] == shown[:, None, :]).sum(2) == 2
        asked = labels != IGNORE
        return {"updated": asked & twice, "kept": asked & ~twice}


@dataclass(frozen=True, kw_only=True)
class CompositionalMQAR(Task):
    """MQAR with keys of two tokens, all pairs of a grid: neither token alone says more than which row or column it is.

    Token 0 is filler; first and second halves of keys and values have a third of the vocabulary each. After Zoology's
    `compositional_ar.py`. Who binds one half of the key only reaches 1 / sqrt(kv).
    """

    vocab_size: int
    length: int
    kv: int

    def check(self) -> None:
        rule(isqrt(self.kv) ** 2 == self.kv, f"kv must be a square, the keys are a grid: got {self.kv}")
        rule(6 * self.kv <= self.length, f"pairs and queries take 6 * kv tokens: got kv={self.kv}, length={self.length}")
        rule(self.vocab_size // 3 > self.kv, f"a third of the vocabulary must be above kv: got vocab_size={self.vocab_size}, kv={self.kv}")

    @property
    def answers(self) -> range:
        return range(2 * (self.vocab_size // 3), self.vocab_size)

    @property
    def plateau(self) -> float:
        return 1 / self.kv

    def rows(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        side, third = isqrt(self.kv), self.vocab_size // 3
        cell = distinct(rng, n, self.kv, range(self.kv))  # the order in which the grid is shown
        first = np.take_along_axis(distinct(rng, n, side, range(1, third)), cell // side, axis=1)
        second = np.take_along_axis(distinct(rng, n, side, range(third, 2 * third)), cell % side, axis=1)
        values, start = distinct(rng, n, self.kv, self.answers), 3 * self.kv
        ids, labels = np.zeros((n, self.length), dtype=np.int64), np.full((n, self.length), IGNORE)
        for k, part in enumerate((first, second, values)):
            ids[:, k:start:3] = part
        at = start + 3 * power_law_slots(rng, n, self.kv, (self.length - start) // 3, GAP_POWER)
        for k, part in enumerate((first, second)):
            np.put_along_axis(ids, at + k, part, axis=1)
        np.put_along_axis(labels, at + 1, values, axis=1)
        return ids, labels

    def word(self, token: int) -> str:
        third = self.vocab_size // 3
        return "·" if token == 0 else f"{'ab'[token // third]}{token % third}" if token < 2 * third else f"v{token - 2 * third}"


@dataclass(frozen=True, kw_only=True)
class Needle(Task):
    """`needles` pairs of key and value at random places of a long text of filler; at the end one of the keys is asked for.

    Token 0 says that the question follows; keys, values and filler have a third of the vocabulary each. One token stands for
    what is a sentence in the usual test of language models; `paper` has the four keys of RULER's multi-key form (Hsieh et al.
    2024, arXiv 2404.06654; recalled, not looked up) in 4096 tokens.
    """

    vocab_size: int
    length: int
    needles: int

    def check(self) -> None:
        rule(
            self.vocab_size >= 7 and 1 <= self.needles <= (self.vocab_size - 1) // 3,
            f"needles must be in 1..(vocab_size - 1) / 3: got {self.needles}, vocab_size {self.vocab_size}",
        )
        rule(
            2 * self.needles + 2 <= self.length,
            f"needles and question take 2 * needles + 2 tokens: got {self.needles} needles, length {self.length}",
        )

    @property
    def third(self) -> int:
        return (self.vocab_size - 1) // 3

    @property
    def answers(self) -> range:
        return range(1 + self.third, 1 + 2 * self.third)

    @property
    def plateau(self) -> float:
        return 1 / self.needles

    @property
    def shortcut(self) -> float:
        """A slot holds the needle that is asked for as often as any other: 1 / slots, or by luck."""
        return 2 / (self.length - 2) + self.chance

    def rows(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        ids = rng.integers(1 + 2 * self.third, self.vocab_size, (n, self.length))
        keys, values = (distinct(rng, n, self.needles, choices) for choices in (range(1, 1 + self.third), self.answers))
        at = 2 * distinct(rng, n, self.needles, range((self.length - 2) // 2))
        np.put_along_axis(ids, at, keys, axis=1)
        np.put_along_axis(ids, at + 1, values, axis=1)
        ids[:, -2], ids[:, -1] = 0, keys[:, 0]
        labels = np.full_like(ids, IGNORE)
        labels[:, -1] = values[:, 0]
        return ids, labels

    def word(self, token: int) -> str:
        kind, number = divmod(token - 1, self.third)
        return "?" if token == 0 else f"k{number}" if kind == 0 else f"v{number}" if kind == 1 else "·"


@dataclass(frozen=True, kw_only=True)
class Induction(Task):
    """Random symbols, among them once a special one; it comes again at the end: say what followed it.

    Token 0 is special. `paper` as in Gu & Dao 2023 (arXiv 2312.00752, section 4.1): vocabulary 16, length 256, longer ones to see
    whether it goes on (recalled, not looked up).
    """

    vocab_size: int
    length: int

    def check(self) -> None:
        rule(
            self.vocab_size >= 3 and self.length >= 4,
            f"vocab_size must be 3 or more and length 4 or more: got {self.vocab_size} and {self.length}",
        )

    @property
    def answers(self) -> range:
        return range(1, self.vocab_size)

    @property
    def shortcut(self) -> float:
        """One of length - 2 places, or by luck."""
        return self.chance + 1 / (self.length - 2)

    def rows(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        ids, labels = rng.integers(1, self.vocab_size, (n, self.length)), np.full((n, self.length), IGNORE)
        row, at = np.arange(n), rng.integers(self.length - 2, size=n)
        ids[row, at], ids[:, -1] = 0, 0
        labels[:, -1] = ids[row, at + 1]
        return ids, labels

    def word(self, token: int) -> str:
        return "!" if token == 0 else str(token)
