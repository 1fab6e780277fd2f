"""What may be said of arms that were run with several seeds: tests, intervals and levels from scipy and statsmodels.

The seed is the unit: however many examples were scored, a seed gives one number. Arms are paired by seed. Tests are exact
(all 2^n flips of the signs of n differences), so they hold their level for any distribution that is symmetric under "no
effect", bimodal ones included; and they cannot find anything with fewer than LEAST_SEEDS.

To show that there is no effect is harder. Where one seed in eight fails to learn, six seeds look well in 45 % of the studies, and
no test can see in them what did not happen. So two verdicts are kept apart. "Alike": the seeds that were run are, by TOST, which
needs differences that scatter symmetrically; given with the share of seeds that may be otherwise. "Equivalent": the mean is within
the margin whatever the distribution, which needs many seeds (`bounded`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

LEAST_SEEDS = 6  # with 5 the smallest two-sided p of an exact test is 1/16
MOST_FLIPS = 1 << 14  # with more seeds than 14, flips are drawn at random
SIMULATED = 9  # seeds up to which the least detectable effect is found by simulation of the exact test
DRAWS = 800  # studies of that simulation: its power is known to +-0.015


def sign_flip(differences: np.ndarray, alternative: str = "two-sided") -> np.ndarray:
    """p of the exact permutation test that differences are as likely positive as negative. (..., n) -> (...)"""
    from scipy.stats import permutation_test

    d = np.atleast_1d(np.asarray(differences, dtype=float))
    return permutation_test(
        (d,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        axis=-1,
        n_resamples=MOST_FLIPS,
        batch=max(1, (1 << 24) // max(1, d.size)),
        alternative=alternative,
        rng=np.random.default_rng(0),
    ).pvalue


def seeds_needed(family: int, alpha: float = 0.05) -> int:
    """The least number of seeds with which the exact test can find anything in a family of contrasts: 2^(1-n) * family <= alpha."""
    return max(LEAST_SEEDS, math.ceil(math.log2(2 * family / alpha)))


def tost(differences: np.ndarray, margin: float) -> np.ndarray:
    """p of two one-sided exact tests that the mean difference is within +-margin: small means alike. (..., n) -> (...)

    Like the sign flips it assumes that differences scatter symmetrically: failures too rare to be among the seeds are not seen.
    """
    d = np.asarray(differences, dtype=float)
    return np.maximum(sign_flip(d + margin, "greater"), sign_flip(d - margin, "less"))


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


def at_most(seen: int, n: int, level: float = 0.95) -> float:
    """The upper one-sided bound of a share of which `seen` of n were found (Clopper & Pearson 1934)."""
    from statsmodels.stats.proportion import proportion_confint

    return float(proportion_confint(seen, n, alpha=2 * (1 - level), method="beta")[1])


def interval(differences: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """BCa bootstrap of the mean difference (Efron 1987). One value, or all the same: that value."""
    from scipy.stats import bootstrap

    d = np.asarray(differences, dtype=float)
    if len(d) < 2 or np.ptp(d) == 0:
        return float(d.mean()), float(d.mean())
    bounds = bootstrap(
        (d,), np.mean, vectorized=True, method="BCa", confidence_level=level, n_resamples=9999, rng=np.random.default_rng(0)
    ).confidence_interval
    return float(bounds.low), float(bounds.high)


def wilson(solved: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The interval of a solve rate."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(solved, n, alpha=1 - level, method="wilson")
    return float(low), float(high)


def holm(p: Sequence[float]) -> list[float]:
    """p corrected for their number (Holm 1979): below alpha with a probability of at most alpha for any of them."""
    from statsmodels.stats.multitest import multipletests

    # a single p stays as it is, and multipletests would spend a third of a second on it, on garbage collection
    return [float(value) for value in multipletests(list(p), method="holm")[1]] if len(p) > 1 else list(p)


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


@lru_cache(maxsize=64)
def detectable(n: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """The least mean difference, in standard deviations of a seed's, that n seeds find with this power; inf below LEAST_SEEDS.

    Up to SIMULATED seeds by simulation of the exact test on normal differences, which is coarser than the t-test there;
    beyond by the t-test's own formula.
    """
    from scipy.optimize import brentq
    from statsmodels.stats.power import TTestPower

    if n < LEAST_SEEDS:
        return math.inf
    smooth = float(TTestPower().solve_power(nobs=n, alpha=alpha, power=power))
    if n > SIMULATED:
        return smooth
    noise = np.random.default_rng(n).normal(size=(DRAWS, n))

    def missing(effect: float) -> float:
        return float((sign_flip(noise + effect) <= alpha).mean()) - power

    if missing(4 * smooth) < 0:  # alpha is out of reach of so few seeds, whatever the effect
        return math.inf
    return float(brentq(missing, smooth / 2, 4 * smooth, xtol=0.03))


def verdict(n: int, difference: float, p: float, p_alike: float, p_equivalent: float, alike: int, alpha: float = 0.05) -> str:
    """more, less, alike in so many seeds, equivalent; one of the first two with one of the others; or no verdict.

    p, p_alike, p_equivalent: corrected. alike: the seeds within the margin.
    """
    if n < LEAST_SEEDS:
        return f"no verdict ({n} seeds, {LEAST_SEEDS} needed)"
    differs = ("more" if difference > 0 else "less") if p <= alpha else ""
    near = f"alike in {alike} of {n} seeds (up to {at_most(n - alike, n, 1 - alpha):.0%} may not be)" if p_alike <= alpha else ""
    if p_equivalent <= alpha:
        near = "within the margin" if differs else "equivalent"
    return ", ".join(word for word in (differs, near) if word) or "no verdict"
