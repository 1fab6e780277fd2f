"""What a task is: batches from a seed, the right answers, and the levels an accuracy has to be read against; how tasks draw.

A task is a frozen value. Its training and its held-out sequences never meet: the hash of a sequence decides which of the two
it may be, and a stream draws again what belongs to the other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from zamba_lab.ops.loss import IGNORE, token_nll  # the label where nothing is asked

HELD_OUT = 8  # one sequence in so many is never trained on
HASH_SEED = 20231207
PER_LINE = 16  # tokens in a line of an example


class Batch(NamedTuple):
    """ids (n, l) and labels (n, l), int64. labels[t] is the right token to say at position t, IGNORE where nothing is asked."""

    ids: Tensor
    labels: Tensor


class Accuracy(NamedTuple):
    """Shares of what is right: of all asked positions, of sequences with every answer right, and sequence by sequence (n,)."""

    total: float
    whole: float
    per_sequence: Tensor


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """Base of all tasks. Each also has `vocab_size` and `length`, as fields or as what follows from its fields.

    A subclass gives `rows`, `answers` and `word`, and raises ValueError in `check` if its fields do not fit. It adds 1 to VERSION when
    its sequences change, so that results of the old ones are not taken for the new ones.
    """

    name: str
    size: str
    held_out: bool = False  # which of the two streams; `unseen()` changes it

    VERSION: ClassVar[int] = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            kind, value = {"int": Integral, "float": Real, "str": str, "bool": bool}.get(field.type, object), getattr(self, field.name)
            rule(
                isinstance(value, kind) and (field.type == "bool" or not isinstance(value, bool)),
                f"{field.name} must be of type {field.type}: got {value!r}",
            )
        self.check()

    @abstractmethod
    def rows(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
        """n candidate sequences: ids and labels, (n, l) int64. A row that asks nothing is drawn again."""

    @property
    @abstractmethod
    def answers(self) -> range:
        """The tokens that an answer may be."""

    def check(self) -> None:  # noqa: B027 - most tasks have nothing to check
        """Raise ValueError if the fields break a rule."""

    def word(self, token: int) -> str:
        """A token as people read it."""
        return str(token)

    @property
    def chance(self) -> float:
        """The accuracy of guessing among `answers`."""
        return 1 / len(self.answers)

    @property
    def plateau(self) -> float | None:
        """The accuracy of guessing among the answers the sequence has shown so far: it was seen and not bound. None: no level
        worth a line of its own."""
        return None

    @property
    def shortcut(self) -> float:
        """The most that a fixed place or distance can tell: the token there, or what usually is the answer when it stands there."""
        return self.chance if self.plateau is None else self.plateau

    def unseen(self) -> Task:
        """The task on sequences that training never shows."""
        return replace(self, held_out=True)

    def longer(self, factor: int) -> Task:
        """The task on sequences `factor` times as long, over the same vocabulary: does it generalise in length?"""
        return replace(self, length=factor * self.length)

    def batch(self, seed: int, step: int, n: int) -> Batch:
        """n sequences: a function of the arguments alone, so a run can be resumed anywhere.

        Raises ValueError if seed or step is below 0, n below 1, or the fields leave next to no sequence that asks something.
        """
        whole_numbers = all(isinstance(number, Integral) for number in (seed, step, n))
        rule(
            whole_numbers and seed >= 0 and step >= 0 and n >= 1,
            f"seed and step must be integers of 0 or more, n of 1 or more: got seed={seed!r}, step={step!r}, n={n!r}",
        )
        rng = np.random.default_rng((seed, step, int(self.held_out)))
        share = (1 if self.held_out else HELD_OUT - 1) / HELD_OUT
        parts, missing = [], n
        for _ in range(1000):
            ids, labels = self.rows(rng, max(8, int(1.2 * missing / share)))
            keep = (self.kept_back(ids) == self.held_out) & (labels != IGNORE).any(1)
            parts.append((ids[keep], labels[keep]))
            missing -= int(keep.sum())
            if missing <= 0:
                ids, labels = (torch.from_numpy(np.concatenate(part)[:n]) for part in zip(*parts))
                return Batch(ids, labels)
        raise ValueError(f"no sequences of {self}: of 1000 draws too few asked something")

    def kept_back(self, ids: np.ndarray) -> np.ndarray:
        """Whether each sequence is one of those never trained on, (n,) bool."""
        return hashes(ids) % HELD_OUT == 0

    def slices(self, ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Kinds of asked positions worth a number of their own: name -> (n, l) bool. Most tasks have none."""
        return {}

    def facts(self) -> dict[str, Any]:
        """What identifies the sequences, as values that JSON has."""
        return {"task": type(self).__name__, "version": self.VERSION} | {field.name: getattr(self, field.name) for field in fields(self)}

    def spelled(self, ids: Tensor, labels: Tensor) -> tuple[list[str], list[str | None]]:
        """The tokens of one sequence, and its answers, None where nothing is asked: what `viz.questions` takes."""
        return ([self.word(token) for token in ids.tolist()], [None if label == IGNORE else self.word(label) for label in labels.tolist()])

    def draw(self, ids: Tensor, labels: Tensor) -> str:
        """One sequence, (l,) and (l,), as text: lines of tokens, and below each the answer where one is asked."""
        words, answers = self.spelled(ids, labels)
        below = [answer or "" for answer in answers]
        wide = max(map(len, words + below)) + 1
        lines = []
        for at in range(0, len(words), PER_LINE):
            lines += ["".join(word.ljust(wide) for word in line[at : at + PER_LINE]).rstrip() for line in (words, below)]
        return "\n".join(line for line in lines if line)


def hashes(ids: np.ndarray) -> np.ndarray:
    """A number in 0..2^32 - 1 for each row, the same on every machine; rows are taken as they are, end included."""
    odd = np.random.default_rng(HASH_SEED).integers(2**62, size=ids.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    with np.errstate(over="ignore"):
        mixed = ((ids.astype(np.uint64) + np.uint64(1)) * odd).sum(1, dtype=np.uint64)
        mixed = (mixed ^ (mixed >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15)
    return mixed >> np.uint64(32)


def accuracy(logits: Tensor, labels: Tensor) -> Accuracy:
    """How much is right over the asked positions. logits: (n, l, v), or predictions (n, l). labels: (n, l)."""
    predictions = logits if logits.ndim == 2 else logits.argmax(-1)
    asked = labels != IGNORE
    right = ((predictions == labels) & asked).sum(1)
    shares = right / asked.sum(1)
    return Accuracy((right.sum() / asked.sum()).item(), (shares == 1).double().mean().item(), shares)


def losses(logits: Tensor, labels: Tensor, slices: dict[str, Tensor]) -> dict[str, float]:
    """The mean loss of each slice's questions in nats, in float32 or wider; slices without a question are left out."""
    nll = token_nll(logits, labels)
    return {name: nll[where].mean().item() for name, where in slices.items() if where.any()}


def rule(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def distinct(rng: np.random.Generator, n: int, count: int, choices: range) -> np.ndarray:
    """`count` different numbers of a range in random order, for each of n rows: (n, count)."""
    keys = rng.random((n, len(choices)))
    if count < len(choices):
        # of long rows numpy takes the least in an order that depends on the processor's vector units, but not of long doubles
        picked = np.argpartition(keys.astype(np.longdouble) if len(choices) > 2048 else keys, count, axis=1)[:, :count]
    else:
        picked = np.broadcast_to(np.arange(count), (n, count))
    return rng.permuted(picked, axis=1) + choices.start


def power_law_slots(rng: np.random.Generator, n: int, count: int, slots: int, power: float) -> np.ndarray:
    """`count` different slots of 0..slots - 1 for each row, (n, count), drawn one after the other with p(i) ~ (i + 1)^(power - 1).

    Drawing without replacement in proportion to p is taking the least of exponential times with rates p (Efraimidis &
    Spirakis 2006). The order is random, not that of the draws: else the first to be drawn would tend to stand first.
    """
    times = rng.exponential(size=(n, slots)) / np.arange(1, slots + 1) ** (power - 1.0)
    return rng.permuted(times.argsort(axis=1)[:, :count], axis=1)
