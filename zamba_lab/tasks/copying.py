"""Write down again what was read: copying, selective copying, and what stands after or where something stood."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from zamba_lab.tasks.task import IGNORE, Task, distinct, rule


@dataclass(frozen=True, kw_only=True)
class Copying(Task):
    """A random string of `shortest`..`longest` symbols, a token that says "again", and the string again, all of it asked.

    Padding fills up the right end. `paper` has the letters and lengths of the public code of "Repeat After Me" (Jelassi et al.
    2024, arXiv 2402.01032): 26 letters, 8..50 in training by default; `longer` asks for longer strings only.
    """

    symbols: int
    shortest: int
    longest: int

    def check(self) -> None:
        rule(
            self.symbols >= 2 and 1 <= self.shortest <= self.longest,
            "symbols must be 2 or more and 1 <= shortest <= longest: got "
            f"symbols={self.symbols}, shortest={self.shortest}, longest={self.longest}",
        )

    @property
    def vocab_size(self) -> int:
        return self.symbols + 2

    @property
    def length(self) -> int:
        return 2 * self.longest

    @property
    def answers(self) -> range:
        return range(self.symbols)

    @property
    def plateau(self) -> float:
        """Of the m + j symbols that stand there before answer j one is its own; others agree by luck."""
        shown = np.concatenate([m + np.arange(m) for m in range(self.shortest, self.longest + 1)])
        return float((1 / shown + (1 - 1 / shown) / self.symbols).mean())

    @property
    def shortcut(self) -> float:
        """The right distance for the longest strings, luck for the others."""
        share = self.longest / sum(range(self.shortest, self.longest + 1))
        return share + (1 - share) * self.chance

    def longer(self, factor: int) -> Task:
        return replace(self, shortest=self.longest + 1, longest=factor * self.longest)

    def rows(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        again, pad = self.symbols, self.symbols + 1
        size = rng.integers(self.shortest, self.longest + 1, (n, 1))
        text = rng.integers(self.symbols, size=(n, self.longest))
        at = np.arange(self.length)[None]
        back = at - size - 1  # the place in the copy; -1 at "again"
        copied = np.take_along_axis(text, np.clip(back, 0, self.longest - 1), axis=1)
        first = np.take_along_axis(text, np.minimum(at, self.longest - 1), axis=1)
        ids = np.where(at < size, first, np.where(at == size, again, np.where(back < size - 1, copied, pad)))
        coming = np.take_along_axis(text, np.clip(back + 1, 0, self.longest - 1), axis=1)
        return ids, np.where((at >= size) & (back < size - 1), coming, IGNORE)

    def word(self, token: int) -> str:
        return ("again", "")[token - self.symbols] if token >= self.symbols else chr(97 + token) if self.symbols <= 26 else str(token)


@dataclass(frozen=True, kw_only=True)
class SelectiveCopying(Task):
    """`copied` symbols at random places among blanks, a token that says "again", and as many blanks: at each the next symbol.

    `paper` is mad-lab's baseline: 16 tokens (14 symbols, the blank, "again"), length 256, 16 to copy. Gu & Dao 2023 have length
    4096. `longer` has more blanks between the symbols; with `replace(task, copied=...)` there is more to copy.
    """

    vocab_size: int
    length: int
    copied: int

    def check(self) -> None:
        rule(
            self.vocab_size >= 4 and self.copied >= 1,
            f"vocab_size must be 4 or more, copied 1 or more: got {self.vocab_size}, {self.copied}",
        )
        rule(
            self.length > 2 * self.copied + 1,
            "symbols, blanks, the token and the answers take more than 2 * copied + 1 tokens: got "
            f"length={self.length}, copied={self.copied}",
        )

    @property
    def answers(self) -> range:
        return range(self.vocab_size - 2)

    @property
    def context(self) -> int:
        return self.length - self.copied - 1

    @property
    def plateau(self) -> float:
        return 1 / self.copied + (1 - 1 / self.copied) * self.chance

    @property
    def shortcut(self) -> float:
        """How often symbol j stands at its likeliest place, over all j (order statistics), at most; or luck where a symbol is."""
        full = self.copied / self.context
        at_best = np.minimum(1, 1.2 / np.sqrt(2 * np.pi * (self.context * full * (1 - full) + 1)))
        return float(max(self.plateau, at_best + self.chance))

    def rows(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        blank, again = self.vocab_size - 2, self.vocab_size - 1
        ids, labels = np.full((n, self.length), blank), np.full((n, self.length), IGNORE)
        symbols = rng.integers(len(self.answers), size=(n, self.copied))
        at = np.sort(distinct(rng, n, self.copied, range(self.context)), axis=1)
        np.put_along_axis(ids, at, symbols, axis=1)
        ids[:, self.context] = again
        labels[:, self.context + 1 :] = symbols
        return ids, labels

    def word(self, token: int) -> str:
        return ("·", "again")[token - self.vocab_size + 2] if token >= self.vocab_size - 2 else str(token)


@dataclass(frozen=True, kw_only=True)
class NGramRetrieval(Task):
    """A random `string` of `symbols`, a mark, `query` tokens that stand once in it: say the `answer` tokens that followed them.

    N-gram retrieval of "Retrievit" (Pantazopoulos et al. 2026, arXiv 2603.02874) and the prefix variant of "Repeat After Me". Their
    sizes were not to be looked up: `paper` has the letters of the latter and a string of 220, its default context.
    """

    symbols: int
    string: int
    query: int
    answer: int

    def check(self) -> None:
        rule(
            self.symbols >= 2 and self.query >= 1 and self.answer >= 1 and self.string >= 2 * (self.query + self.answer),
            "symbols must be 2 or more, query and answer 1 or more and twice in the string: got "
            f"symbols={self.symbols}, string={self.string}, query={self.query}, answer={self.answer}",
        )

    @property
    def vocab_size(self) -> int:
        return self.symbols + 1

    @property
    def length(self) -> int:
        return self.string + self.query + self.answer

    @property
    def answers(self) -> range:
        return range(self.symbols)

    @property
    def shortcut(self) -> float:
        """One of so many starts, or luck."""
        return self.chance + 1 / self.starts

    @property
    def starts(self) -> int:
        return self.string - self.query - self.answer + 1

    def longer(self, factor: int) -> Task:
        return replace(self, string=factor * self.string)

    def rows(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        text = rng.integers(self.symbols, size=(n, self.string))
        at = rng.integers(self.starts, size=(n, 1)) + np.arange(self.query + self.answer)
        span = np.take_along_axis(text, at, axis=1)
        mark = np.full((n, 1), self.symbols)
        ids = np.concatenate([text, mark, span[:, :-1]], axis=1)
        labels = np.full_like(ids, IGNORE)
        once = self.matches(text, span[:, : self.query]).sum(1) == 1  # others ask nothing, and are drawn again
        labels[:, self.string + self.query :] = np.where(once[:, None], span[:, self.query :], IGNORE)
        return ids, labels

    def matches(self, text: np.ndarray, query: np.ndarray) -> np.ndarray:
        """Where in the text the query stands: (n, string - query + 1) bool, by its first token."""
        windows = np.lib.stride_tricks.sliding_window_view(text, self.query, axis=1)
        return (windows == query[:, None]).all(2)

    def word(self, token: int) -> str:
        return "?" if token == self.symbols else chr(97 + token) if self.symbols <= 26 else str(token)


@dataclass(frozen=True, kw_only=True)
class PositionRetrieval(Task):
    """`string` different ones of the `symbols` in random order, and one of them again: say at which place it stood.

    Position retrieval of "Retrievit", whose sizes were not to be looked up. Places are tokens of their own after the symbols.
    """

    symbols: int
    string: int

    def check(self) -> None:
        rule(2 <= self.string <= self.symbols, f"string must be in 2..symbols, for the symbols differ: got {self.string}, {self.symbols}")

    @property
    def vocab_size(self) -> int:
        return self.symbols + self.string

    @property
    def length(self) -> int:
        return self.string + 1

    @property
    def answers(self) -> range:
        return range(self.symbols, self.vocab_size)

    def longer(self, factor: int) -> Task:
        raise ValueError("position retrieval has no longer form: later places are tokens that training never showed")

    def rows(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        text, at = distinct(rng, n, self.string, range(self.symbols)), rng.integers(self.string, size=(n, 1))
        ids = np.concatenate([text, np.take_along_axis(text, at, axis=1)], axis=1)
        labels = np.full_like(ids, IGNORE)
        labels[:, -1:] = at + self.symbols
        return ids, labels

    def word(self, token: int) -> str:
        return str(token) if token < self.symbols else f"@{token - self.symbols}"
