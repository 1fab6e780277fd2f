"""How the tasks draw: without replacement, at places of a given law, and the search that most oracles are."""

from __future__ import annotations

import numpy as np


def distinct(rng: np.random.Generator, n: int, count: int, choices: range) -> np.ndarray:
    """`count` different numbers of a range in random order, for each of n rows: (n, count)."""
    keys = rng.random((n, len(choices)))
    if count < len(choices):
        picked = np.argpartition(keys, count, axis=1)[:, :count]
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


def follower(ids: np.ndarray, width: int = 1) -> np.ndarray:
    """For each position the token after the last earlier place where the `width` tokens up to it stood; 0 if there is none.

    (n, l) -> (n, l). This is what recall asks for: see the key, say what followed it.
    """
    n, l = ids.shape
    found = np.zeros_like(ids)
    code = ids.copy()
    for back in range(1, width):
        code[:, back:] = code[:, back:] + ids[:, :-back] * (int(ids.max()) + 1) ** back
    for t in range(width, l):
        same = code[:, width - 1 : t] == code[:, t : t + 1]  # (n, t - width + 1)
        last = same.shape[1] - 1 - same[:, ::-1].argmax(1)
        found[:, t] = np.where(same.any(1), ids[np.arange(n), last + width], 0)
    return found
