"""Follow a state: products in a group, and open brackets.

The controls of the suite: an SSM whose transitions have eigenvalues in [0, 1] cannot keep a parity at every length (Grazzi et al.
2024, arXiv 2411.12537), and no model of fixed depth computes products in S5 at every length unless TC0 = NC1 (Merrill et al.
2024, arXiv 2404.08819).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import numpy as np

from zamba_lab.tasks.task import IGNORE, Task, rule


@dataclass(frozen=True, kw_only=True)
class WordProblem(Task):
    """Elements of a group; at each the product of all so far, the new one applied after the others.

    group: Zn, the numbers modulo n (Z2: parity); Sn, permutations; An, even permutations. Nothing is asked at the first position,
    where the product is the element itself; from there on neither place nor element says anything of the answer. `paper`: Merrill
    et al. 2024 have Z60, A4 x Z5 and A5 with lengths up to 25, Grazzi et al. 2024 parity with training lengths up to 40 (both
    recalled, not looked up); S3's length is chosen here.
    """

    group: str
    length: int

    def check(self) -> None:
        elements(self.group)
        rule(self.length >= 2, f"length must be 2 or more: got {self.length}")

    @property
    def vocab_size(self) -> int:
        return len(elements(self.group))

    @property
    def answers(self) -> range:
        return range(self.vocab_size)

    def rows(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        ids, table = rng.integers(self.vocab_size, size=(n, self.length)), products(self.group)
        labels = np.full_like(ids, IGNORE)
        state = ids[:, 0]
        for t in range(1, self.length):
            labels[:, t] = state = table[state, ids[:, t]]
        return ids, labels

    def word(self, token: int) -> str:
        return str(token) if self.group[0] == "Z" else "".join(str(k + 1) for k in elements(self.group)[token])


@lru_cache(maxsize=32)
def elements(group: str) -> np.ndarray:
    """A group's elements as permutations, (order, points): row g says where g takes each point. Z as rotations.

    Raises ValueError naming the groups there are.
    """
    kind, size = group[:1], group[1:]
    if kind not in "ZSA" or not size.isdecimal() or not 2 <= int(size) <= (256 if kind == "Z" else 6):
        raise ValueError(f"group must be Z2..Z256, S2..S6 or A2..A6: got {group!r}")
    if kind == "Z":
        return (np.arange(int(size))[:, None] + np.arange(int(size))) % int(size)
    return np.array([p for p in permutations(range(int(size))) if kind == "S" or even(p)])


def even(p: Sequence[int]) -> bool:
    return sum(p[i] > p[j] for i in range(len(p)) for j in range(i + 1, len(p))) % 2 == 0


@lru_cache(maxsize=32)
def products(group: str) -> np.ndarray:
    """(order, order): which element first row, then column is."""
    moves = elements(group)
    order, points = moves.shape
    if group[0] == "Z":
        return (np.arange(order)[:, None] + np.arange(order)) % order
    weight = points ** np.arange(points)
    codes = (moves * weight).sum(1)
    after = moves[:, moves]  # (second, first, points)
    return np.argsort(codes)[np.searchsorted(np.sort(codes), (after * weight).sum(2))].T


@dataclass(frozen=True, kw_only=True)
class Dyck(Task):
    """Brackets of several kinds, never more than `depth` open; after a closing one: which kind would have to be closed now?

    Asked only where the bracket to be closed was opened `reach` or more tokens ago, so that it has been remembered over others.
    Opening brackets are 0..kinds - 1, closing ones follow. Dyck-(k, m) after Hewitt et al. 2020 and Yao et al. 2021 (arXiv 2105.11115),
    whose public code has 8 kinds, depth 10 and lengths to 700, which `paper` takes; they score next-token predictions at all
    closing brackets, in whole strings.
    """

    kinds: int
    depth: int
    length: int
    reach: int = 6

    def check(self) -> None:
        rule(self.kinds >= 2 and self.depth >= 2, f"kinds and depth must be 2 or more: got {self.kinds}, {self.depth}")
        rule(3 <= self.reach < self.length - 2, f"reach must be in 3..length - 3: got {self.reach}, length {self.length}")

    @property
    def vocab_size(self) -> int:
        return 2 * self.kinds

    @property
    def answers(self) -> range:
        return range(self.kinds, 2 * self.kinds)

    @property
    def shortcut(self) -> float:
        """The nearest distance that is asked is the likeliest, and an answer repeats a bracket closed before by luck only."""
        return 0.55

    def rows(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        row, level = np.arange(n), np.zeros(n, dtype=np.int64)
        kind, since = np.zeros((n, self.depth + 1), dtype=np.int64), np.zeros((n, self.depth + 1), dtype=np.int64)
        ids, labels = np.zeros((n, self.length), dtype=np.int64), np.full((n, self.length), IGNORE)
        for t in range(self.length):
            opens = np.where(level == 0, True, np.where(level == self.depth, False, rng.random(n) < 0.5))
            drawn = rng.integers(self.kinds, size=n)
            ids[:, t] = np.where(opens, drawn, self.kinds + kind[row, level])
            level = level + np.where(opens, 1, -1)
            kind[row, level] = np.where(opens, drawn, kind[row, level])
            since[row, level] = np.where(opens, t, since[row, level])
            asked = ~opens & (level > 0) & (t - since[row, level] >= self.reach)
            labels[:, t] = np.where(asked, self.kinds + kind[row, level], IGNORE)
        return ids, labels

    def word(self, token: int) -> str:
        kind = token % self.kinds
        pairs = ("()", "[]", "{}", "<>")
        bracket = pairs[kind % len(pairs)][token // self.kinds]
        return bracket if self.kinds <= len(pairs) else f"{bracket}{kind}"
