"""What may be said of arms that were run with several seeds: exact tests, intervals that cover, times to solve.

The seed is the unit: however many examples were scored, a seed gives one number, and arms are paired by seed. All functions take
(..., n) differences, one for each seed, so that a thousand simulated studies are judged by the very code that judges one.

Tests flip the signs of the n differences in all 2^n ways. They hold their level for every distribution if two arms are the same; a
threshold other than 0 assumes besides that differences scatter symmetrically about it. `bounded` assumes nothing, and needs many seeds.

Of few seeds no interval of a mean covers 95 % for every distribution: where one seed in eight fails to learn, six seeds show none in
45 % of studies. An interval of the median does, exactly, and so it is the one that is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

LEAST_SEEDS = 6  # with 5 the smallest two-sided p is 1/16, and no interval of a median covers 95 %
MOST_FLIPS = 1 << 12  # with more seeds than 12, so many flips are drawn at random


@lru_cache(maxsize=64)
def flips(n: int) -> np.ndarray:
    """Signs (flips, n): all of them, or MOST_FLIPS drawn ones of which the first flips nothing."""
    if 1 << n <= MOST_FLIPS:
        return 1.0 - 2.0 * ((np.arange(1 << n)[:, None] >> np.arange(n)) & 1)
    signs = np.random.default_rng(n).choice([-1.0, 1.0], size=(MOST_FLIPS, n))
    signs[0] = 1.0
    return signs


def sign_flip(differences: np.ndarray, alternative: str = "two-sided") -> np.ndarray:
    """p of the permutation test that differences are as likely positive as negative. (..., n) -> (...)

    alternative: "greater", "less" or "two-sided".
    """
    d = np.asarray(differences, dtype=float)
    if alternative == "two-sided":
        return np.minimum(1.0, 2 * np.minimum(sign_flip(d, "greater"), sign_flip(-d, "greater")))
    d = d if alternative == "greater" else -d
    signs, rows = flips(d.shape[-1]), d.reshape(-1, d.shape[-1])
    block = max(1, (1 << 22) // len(signs))
    p = []
    for start in range(0, len(rows), block):
        sums = rows[start : start + block] @ signs.T
        p.append((sums >= sums[:, :1] - 1e-9 * np.abs(rows[start : start + block]).sum(1, keepdims=True)).mean(1))
    return np.concatenate(p).reshape(d.shape[:-1])


def more_than(differences: np.ndarray, threshold: float = 0.0) -> np.ndarray:
    """p that the mean difference is at most `threshold`: small means more. (..., n) -> (...)"""
    return sign_flip(np.asarray(differences, dtype=float) - threshold, "greater")


def tost(differences: np.ndarray, margin: float) -> np.ndarray:
    """p of two one-sided tests that the mean difference is beyond +-margin: small means within. (..., n) -> (...)

    Symmetric scatter is assumed: failures too rare to be among the seeds are not seen.
    """
    d = np.asarray(differences, dtype=float)
    return np.maximum(more_than(d, -margin), more_than(-d, -margin))


def bounded(differences: np.ndarray, margin: float, reach: float) -> np.ndarray:
    """p that the mean difference is beyond +-margin, for any distribution within +-reach: small means equivalent. (..., n) -> (...)

    If all n seeds differ by at most w, the share of seeds that differ by more is below 1 - a^(1/n), but for a probability of a
    (Wilks 1941), and |mean| <= w + (1 - a^(1/n)) (reach - w). p is the a for which that is the margin.
    """
    d = np.abs(np.asarray(differences, dtype=float))
    worst = np.minimum(d.max(axis=-1), margin)
    return (max(reach - margin, 0.0) / np.maximum(reach - worst, 1e-12)) ** d.shape[-1]


def seeds_to_be_equivalent(margin: float, reach: float, alpha: float = 0.05) -> int:
    """The least number of seeds with which `bounded` can call two arms equivalent, if they do not differ."""
    return math.ceil(math.log(alpha) / math.log1p(-margin / reach)) if margin < reach else 1


def holm(p: np.ndarray | Sequence[float]) -> np.ndarray:
    """p corrected for their number (Holm 1979), along the first axis: below alpha with a probability of at most alpha for any of them."""
    p = np.asarray(p, dtype=float)
    order = p.argsort(axis=0)
    left = np.arange(len(p), 0, -1).reshape(-1, *[1] * (p.ndim - 1))  # hypotheses not yet rejected
    stepped = np.minimum(1.0, np.maximum.accumulate(np.take_along_axis(p, order, 0) * left, axis=0))
    corrected = np.empty_like(p)
    np.put_along_axis(corrected, order, stepped, 0)
    return corrected


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Two of the n values, the k-th from either end, that hold the median with a probability of `level` or more, for any distribution.

    nan, nan where no two do: of five values the least and the greatest hold it in 93.75 %.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    n, k, outside = len(ordered), 0, 0.0
    while k <= n and (outside := outside + math.comb(n, k) / 2**n) <= (1 - level) / 2:  # P(at most k of n are below the median)
        k += 1
    return (float(ordered[k - 1]), float(ordered[n - k])) if k else (math.nan, math.nan)


def at_most(seen: int, n: int, level: float = 0.95) -> float:
    """The upper one-sided bound of a share of which `seen` of n were found (Clopper & Pearson 1934)."""
    from statsmodels.stats.proportion import proportion_confint

    return float(proportion_confint(seen, n, alpha=2 * (1 - level), method="beta")[1])


def wilson(solved: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of a solve rate."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(solved, n, alpha=1 - level, method="wilson")
    return float(low), float(high)


@dataclass(frozen=True)
class TimeToSolve:
    """Kaplan-Meier over seeds. median: steps until half have solved it, inf if fewer did; its 95 % interval; mean: of
    min(steps, cap), the cap being the longest anyone was watched."""

    median: float
    low: float
    high: float
    mean: float


def time_to_solve(steps: Sequence[float], solved: Sequence[bool]) -> TimeToSolve:
    """steps: when each seed had solved it, or how far it was watched. solved: which of the two."""
    from scipy.stats import CensoredData, ecdf
    from statsmodels.duration.survfunc import SurvfuncRight

    steps, solved = np.asarray(steps, dtype=float), np.asarray(solved, dtype=bool)
    if not solved.any():
        return TimeToSolve(math.inf, math.nan, math.inf, float(steps.max()))
    curve = SurvfuncRight(steps, solved.astype(int))
    with np.errstate(all="ignore"):
        low, high = curve.quantile_ci(0.5)
    fall = ecdf(CensoredData(uncensored=steps[solved], right=steps[~solved])).sf
    edges = np.concatenate([[0.0], fall.quantiles, [steps.max()]])
    area = np.diff(edges) @ np.concatenate([[1.0], fall.probabilities])
    median = curve.quantile(0.5)
    return TimeToSolve(math.inf if np.isnan(median) else float(median), float(low), float(high), float(area))
