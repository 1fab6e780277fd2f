"""The right answers of every task, worked out by another way than the task's own: position t from ids[:t + 1] alone."""

from functools import singledispatch

import numpy as np
import torch
from torch import Tensor

from zamba_lab.tasks.copying import Copying, NGramRetrieval, PositionRetrieval, SelectiveCopying
from zamba_lab.tasks.mad import Compression, FuzzyRecall, Memorization, facts_of
from zamba_lab.tasks.recall import CompositionalMQAR
from zamba_lab.tasks.task import Task
from zamba_lab.tasks.text import Text
from zamba_lab.tasks.tracking import Dyck, WordProblem, elements


def oracle(task: Task, ids: Tensor) -> Tensor:
    """Predictions (n, l) that are right wherever something is asked."""
    return torch.from_numpy(solve(task, ids.numpy()))


@singledispatch
def solve(task: Task, ids: np.ndarray) -> np.ndarray:
    """(n, l) ids -> (n, l) predictions. Here those of recall: what followed the key when it last stood in the sequence."""
    return follower(ids, 2 if isinstance(task, CompositionalMQAR) else 1)


def follower(ids: np.ndarray, width: int = 1) -> np.ndarray:
    """For each position the token after the last earlier place where the `width` tokens up to it stood; 0 if there is none.

    (n, l) -> (n, l). This is what recall asks for: see the key, say what followed it.
    """
    n, l = ids.shape
    next_tokens = np.zeros_like(ids)
    code = ids.copy()
    for back in range(1, width):
        code[:, back:] = code[:, back:] + ids[:, :-back] * (int(ids.max()) + 1) ** back
    for t in range(width, l):
        same = code[:, width - 1 : t] == code[:, t : t + 1]  # (n, t - width + 1)
        last = same.shape[1] - 1 - same[:, ::-1].argmax(1)
        next_tokens[:, t] = np.where(same.any(1), ids[np.arange(n), last + width], 0)
    return next_tokens


@solve.register
def _(task: Copying, ids: np.ndarray) -> np.ndarray:
    size = (ids == task.symbols).argmax(1)[:, None]
    return np.take_along_axis(ids, np.clip(np.arange(ids.shape[1])[None] - size, 0, None), axis=1)


@solve.register
def _(task: SelectiveCopying, ids: np.ndarray) -> np.ndarray:
    is_blank = ids[:, : task.context] == task.vocab_size - 2
    inside = np.take_along_axis(ids[:, : task.context], np.argsort(is_blank, axis=1, kind="stable"), axis=1)
    predictions = np.zeros_like(ids)
    predictions[:, task.context + 1 :] = inside[:, : task.copied]
    return predictions


@solve.register
def _(task: NGramRetrieval, ids: np.ndarray) -> np.ndarray:
    text, start = ids[:, : task.string], task.string + 1
    after = task.matches(text, ids[:, start : start + task.query]).argmax(1)[:, None] + task.query + np.arange(task.answer)
    predictions = np.zeros_like(ids)
    predictions[:, task.string + task.query :] = np.take_along_axis(text, np.minimum(after, task.string - 1), axis=1)
    return predictions


@solve.register
def _(task: PositionRetrieval, ids: np.ndarray) -> np.ndarray:
    predictions = np.zeros_like(ids)
    predictions[:, -1] = (ids[:, :-1] == ids[:, -1:]).argmax(1) + task.symbols
    return predictions


@solve.register
def _(task: FuzzyRecall, ids: np.ndarray) -> np.ndarray:
    return np.stack([recalled(task, row) for row in ids.tolist()])


def recalled(task: FuzzyRecall, row: list[int]) -> np.ndarray:
    """One sequence read token by token: its pairs so far, the key at hand and how much of its value has come."""
    known: dict[tuple[int, ...], list[int]] = {}
    predictions, key, value = [], (), []
    for token in row:
        if token < task.keys:
            if value:
                known.setdefault(key, value)
                key, value = (), []
            key += (token,)
        else:
            value = value + [token]
        stored = known.get(key, [])
        predictions.append(stored[len(value)] if len(value) < len(stored) else 0)
    return np.array(predictions)


@solve.register
def _(task: Compression, ids: np.ndarray) -> np.ndarray:
    return np.take_along_axis(ids, np.clip(ids - task.symbols - 1, 0, None), axis=1)


@solve.register
def _(task: Memorization, ids: np.ndarray) -> np.ndarray:
    known = np.append(facts_of(task.facts_seed, task.keys), 0)
    before = np.concatenate([np.full((len(ids), 1), task.keys), ids[:, :-1]], axis=1)
    return known[np.minimum(before, task.keys)]


@solve.register
def _(task: WordProblem, ids: np.ndarray) -> np.ndarray:
    """By carrying points along, without the table of products."""
    moves = elements(task.group)
    number = {tuple(move): k for k, move in enumerate(moves.tolist())}
    points = np.broadcast_to(np.arange(moves.shape[1]), (len(ids), moves.shape[1]))
    predictions = []
    for t in range(ids.shape[1]):
        points = np.take_along_axis(moves[ids[:, t]], points, axis=1)
        predictions.append([number[tuple(row)] for row in points.tolist()])
    return np.array(predictions).T


@solve.register
def _(task: Dyck, ids: np.ndarray) -> np.ndarray:
    return np.array([innermost(task, row) for row in ids.tolist()])


def innermost(task: Dyck, row: list[int]) -> list[int]:
    open_, predictions = [], []
    for token in row:
        open_ = open_ + [token] if token < task.kinds else open_[:-1]
        predictions.append(task.kinds + open_[-1] if open_ else 0)
    return predictions


@solve.register
def _(task: Text, ids: np.ndarray) -> np.ndarray:
    """No past decides the next byte: it reads ahead, and only says where answers stand."""
    return np.concatenate([ids[:, 1:], ids[:, -1:]], axis=1)
