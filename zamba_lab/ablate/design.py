"""What a study can answer, before a cell of it is run: power, the rate of false verdicts, and what is wrong with its design.

    for place, words in flags(study): ...
    power(study)                      # of each claim, at the difference and scatter that it expects
    false_verdicts(study)             # share of studies in which a claim is confirmed and none is true

Made-up studies go through the functions that judge real ones (judging.py); what is made up is only what the cells gave.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from zamba_lab.ablate import statistics as st
from zamba_lab.ablate.claims import Claim
from zamba_lab.ablate.judging import corrected, least_seeds, p_value
from zamba_lab.ablate.study import Study

STUDIES = 1000  # made up for a power, which is then known to +-0.016
MOST_STUDIES, SUMS = 4000, 3e7  # made up for a rate of false verdicts: so many, or as many as take so many sums of flipped signs
SEARCHED = 400  # for each number of seeds that is tried
MOST_SEEDS = 60  # of a proposal
LEAST_RATES, LEAST_SPAN, LEAST_TUNING = 4, 10.0, 2  # of a learning rate's tuning

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def normal(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return random.normal(size=shape)


def two_humped(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Seeds that learn and seeds that do not, one in four: mean 0, standard deviation 1."""
    return (0.25 - (random.random(shape) < 0.25)) / math.sqrt(0.1875) + 0.01 * random.normal(size=shape)


def simulated(
    study: Study, claims: Sequence[Claim], n: int, effects: Sequence[tuple[float, float]], studies: int, draw: Draw = normal
) -> np.ndarray:
    """Which claims are confirmed in made-up studies of n seeds. effects: mean and scatter of each claim's difference. (claims, studies)

    Seeds of an arm are drawn once in a study: claims that share an arm share its luck, as they do in a real one.
    """
    random, noise = np.random.default_rng(n), {}
    for arm in dict.fromkeys(arm for claim in claims for arm in claim.weights):
        noise[arm] = draw(random, (studies, n))
    p = []
    for claim, (mean, scatter) in zip(claims, effects):
        total = math.sqrt(sum(weight**2 for weight in claim.weights.values()))
        unit = sum(weight * noise[arm] for arm, weight in claim.weights.items()) / (total or 1.0)
        p.append(p_value(claim, mean + scatter * unit, study.reach(claim.metric)))
    return corrected(claims, np.array(p)) <= study.alpha


def false_verdicts(study: Study) -> float:
    """Share of studies in which some claim is confirmed and none is true: each difference lies exactly at what is tested.

    The larger of two: for seeds that scatter normally, and for seeds that learn or do not.
    """
    claims, draws = study.questions, (normal, two_humped)
    effects = [(claim.sign * claim.threshold, claim.scatter or claim.threshold / 4 or 1.0) for claim in claims]
    studies = int(min(MOST_STUDIES, max(200, SUMS / max(1, len(claims)) / len(st.flips(len(study.seeds))))))
    return float(max(simulated(study, claims, len(study.seeds), effects, studies, draw).any(0).mean() for draw in draws)) if claims else 0.0


def power(study: Study, n: int | None = None, studies: int = STUDIES) -> list[float]:
    """Of each claim: how often n seeds (the study's) confirm it, if its expected difference and scatter are the true ones, and normal.

    nan for a claim that does not say both; the others of its family are then corrected as if it were false.
    """
    if not study.claims:
        return []
    effects = [_expected(claim) or (claim.sign * claim.threshold, 1.0) for claim in study.claims]
    found = simulated(study, study.claims, n or len(study.seeds), effects, studies).mean(1)
    return [float(share) if _expected(claim) else math.nan for claim, share in zip(study.claims, found)]


def _expected(claim: Claim) -> tuple[float, float] | None:
    """The mean and the scatter that a claim states; of an equality the mean may be left out: none."""
    mean = 0.0 if claim.expected is None and claim.direction == "equal" else claim.expected
    return None if mean is None or claim.scatter is None else (mean, claim.scatter)


def least_of(study: Study, claim: Claim) -> int:
    """The fewest seeds with which a claim can be confirmed in its family, whatever its effect."""
    size = sum(other.family == claim.family for other in study.questions)
    return least_seeds(claim, study.reach(claim.metric), study.alpha / size)


def proposals(study: Study) -> list[int | None]:
    """Of each claim, the fewest seeds that confirm it with the study's power; None: not within MOST_SEEDS, or nothing is expected."""
    known: dict[int, list[float]] = {}

    def enough(n: int, k: int) -> bool:
        if n not in known:
            known[n] = power(study, n, SEARCHED)
        return known[n][k] >= study.power

    found: list[int | None] = []
    for k, claim in enumerate(study.claims):
        low, high = least_of(study, claim), MOST_SEEDS
        if not _expected(claim) or low > high or not enough(high, k):
            found.append(None)
            continue
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle, k) else (middle + 1, high)
        found.append(low)
    return found


@lru_cache(maxsize=256)
def _detectable(sides: int, n: int, alpha: float, power: float) -> float:
    """In standard deviations: by simulation of the exact test where it is coarse, beyond by the t-test's own formula."""
    from scipy.optimize import brentq
    from statsmodels.stats.power import TTestPower

    if n < st.LEAST_SEEDS or sides / 2**n > alpha:
        return math.inf
    smooth = float(TTestPower().solve_power(nobs=n, alpha=alpha, power=power, alternative="two-sided" if sides == 2 else "larger"))
    if 1 << n > st.MOST_FLIPS:
        return smooth
    noise, test = np.random.default_rng(n).normal(size=(SEARCHED, n)), "two-sided" if sides == 2 else "greater"

    def missing(effect: float) -> float:
        return float((st.sign_flip(noise + effect, test) <= alpha).mean()) - power

    return float(brentq(missing, smooth / 2, 4 * smooth, xtol=0.03)) if missing(4 * smooth) >= 0 else math.inf


def detectable(claim: Claim, n: int, alpha: float, power: float) -> float:
    """The least mean difference beyond the threshold that n seeds find, in standard deviations of a seed's; inf if none, or for "equal"."""
    return math.inf if claim.direction == "equal" else _detectable(2 if claim.direction == "differs" else 1, n, alpha, power)


@dataclass(frozen=True)
class Flag:
    """Something of a design that the reader must know. place: the keys that lead to it."""

    place: tuple
    words: str


def flags(study: Study) -> list[Flag]:
    """What is wrong with a design that can still be run."""
    return [*_of_claims(study), *_of_outcomes(study), *_of_tuning(study)]


def _of_claims(study: Study) -> list[Flag]:
    found, n = [], len(study.seeds)
    shares, proposed = power(study), proposals(study)
    for k, claim in enumerate(study.claims):
        least, place, name = least_of(study, claim), ("claims", k), f'"{claim.text}"'
        if least > n:
            found.append(Flag(place, f"{name} cannot be confirmed by {n} seeds, whatever they show: it takes {least} or more"))
        elif math.isnan(shares[k]):
            found.append(Flag(place, f"the power of {name} is not known: say what difference is expected, and its scatter over seeds"))
        if not math.isnan(shares[k]) and shares[k] < study.power:
            more = f"{proposed[k]} seeds have {study.power:g}" if proposed[k] else f"no number up to {MOST_SEEDS} has {study.power:g}"
            found.append(Flag(place, f"the power of {name} with {n} seeds is {shares[k]:.2f}; {more}"))
    if not study.claims and (least := max((least_of(study, claim) for claim in study.questions), default=0)) > n:
        found.append(Flag(("seeds",), f"{n} seeds cannot give a verdict, whatever they show: so many contrasts take {least} or more"))
    return found


def _of_outcomes(study: Study) -> list[Flag]:
    found = []
    if not study.gates:
        found.append(Flag((), "no gate: nothing says that what is asked about is alive in the base (gates)"))
    if study.until == "solved":
        asked = [(("claims", k), claim.metric) for k, claim in enumerate(study.claims)]
        asked += [(("metrics", k), metric) for k, metric in enumerate(study.metrics)]
        stopped = {place: metric for place, metric in asked if metric != "steps" and metric != "solve_rate"}
        if stopped and study.solved < 1:
            place, metric = next(iter(stopped.items()))
            words = f"cells end when they reach {study.solved:.0%}, so {metric} compares models stopped at different steps"
            found.append(Flag(place, f"{words}: ask for steps, or let all run to the end (until: steps)"))
    return found


def _of_tuning(study: Study) -> list[Flag]:
    rates = study.rates
    if not rates:
        return [Flag((), "no learning rate is tuned: what differs may be the rate that suits an arm (rates)")]
    found = []
    if len(set(rates)) < LEAST_RATES or max(rates) / min(rates) < LEAST_SPAN * (1 - 1e-9):
        words = (
            f"{len(set(rates))} rates over a factor of {max(rates) / min(rates):.3g}: {LEAST_RATES} over {LEAST_SPAN:g} or more are advised"
        )
        found.append(Flag(("rates",), words))
    if len(study.tuning_seeds) < LEAST_TUNING:
        found.append(Flag(("tuning_seeds",), f"a rate is chosen on {len(study.tuning_seeds)} seed only"))
    return found
