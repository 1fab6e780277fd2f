"""What a score has to beat: guessing, guessing among what was shown, and every cheap shortcut that a leak would leave open.

    blind       the commonest answer, of all, at each position, after each token: must not be above `chance`
    copying     the token at a fixed place, or at a fixed distance: must not be above `shortcut`
    table       the commonest answer after each token at a fixed distance, copying up to a renaming: the same

Each is learnt on training sequences where there is something to learn, and scored on held-out ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from zamba_lab.tasks.task import IGNORE, Task


class Asked(NamedTuple):
    """Every question of some sequences: its row, its position, its answer, and the sequences."""

    row: np.ndarray
    at: np.ndarray
    answer: np.ndarray
    ids: np.ndarray

    def token(self, back: int) -> np.ndarray:
        """The token `back` positions before each question; -1 before the start."""
        return np.where(self.at >= back, self.ids[self.row, np.maximum(self.at - back, 0)], -1)


def asked(task: Task, seed: int, n: int) -> Asked:
    """The questions of n sequences."""
    ids, labels = (part.numpy() for part in task.batch(seed, 0, n))
    row, at = np.nonzero(labels != IGNORE)
    return Asked(row, at, labels[row, at], ids)


def shortcuts(task: Task, seed: int = 0, n: int = 512) -> dict[str, dict[str, float]]:
    """The accuracy of each shortcut by kind: "blind", "copying" and "table", each name -> share on held-out sequences.

    n: sequences to learn from, and as many to score. The cost grows with n * length^2 / 2.
    """
    learn, score = asked(task, seed, n), asked(task.unseen(), seed, n)
    length, where = score.ids.shape[1], np.zeros_like(score.at)
    blind = {
        "constant": by_table(np.zeros_like(learn.at), learn.answer, where, score.answer),
        "position": by_table(learn.at, learn.answer, score.at, score.answer),
        "token": by_table(learn.token(0), learn.answer, score.token(0), score.answer),
    }
    copying = {f"distance {back}": share(score.token(back) == score.answer) for back in range(length)}
    copying |= {f"place {place}": share((score.ids[score.row, place] == score.answer) & (score.at >= place)) for place in range(length)}
    table = {f"distance {back}": by_table(learn.token(back), learn.answer, score.token(back), score.answer) for back in range(1, length)}
    return {"blind": blind, "copying": copying, "table": table}


def by_table(keys: np.ndarray, answers: np.ndarray, new_keys: np.ndarray, new_answers: np.ndarray) -> float:
    """How often the answer that was commonest with a key is right for that key again; keys from -1 on."""
    counts = np.zeros((max(keys.max(), new_keys.max()) + 2, max(answers.max(), new_answers.max()) + 1), dtype=np.int64)
    np.add.at(counts, (keys + 1, answers), 1)
    return share(counts.argmax(1)[new_keys + 1] == new_answers)


def guessing(task: Task, seed: int = 0, n: int = 512) -> tuple[float, int]:
    """The accuracy of guessing among the answers there are, and the number of questions: `chance` is its expectation."""
    questions = asked(task, seed, n)
    guess = np.random.default_rng(seed + 1).integers(task.answers.start, task.answers.stop, len(questions.row))
    return share(guess == questions.answer), len(guess)


def unbound(task: Task, seed: int = 0, n: int = 512) -> tuple[float, int]:
    """The accuracy of guessing among the answers shown before the question, and the number of questions: `plateau`."""
    questions, rng = asked(task, seed, n), np.random.default_rng(seed + 1)
    right = [len(shown) > 0 and rng.choice(shown) == answer for shown, answer in zip(shown_before(task, questions), questions.answer)]
    return share(np.array(right)), len(right)


def shown_before(task: Task, questions: Asked) -> Iterator[np.ndarray]:
    """For each question the tokens up to it that are answers."""
    for row, at in zip(questions.row, questions.at):
        before = questions.ids[row, : at + 1]
        yield before[(before >= task.answers.start) & (before < task.answers.stop)]


def margin(share: float, count: int, deviations: float = 5.0) -> float:
    """How far luck may carry a share measured on `count` questions: the largest of some hundred shortcuts stays inside."""
    return deviations * (max(share * (1 - share), 1 / count) / count) ** 0.5


def share(right: np.ndarray) -> float:
    return float(right.mean())
