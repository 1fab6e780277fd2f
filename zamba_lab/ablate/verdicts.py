"""From a store to answers: each arm's outcome, each contrast with the base, each claim."""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zamba_lab.ablate import statistics as st
from zamba_lab.ablate.claims import METRICS, Claim
from zamba_lab.ablate.planning import Plan
from zamba_lab.ablate.store import Store
from zamba_lab.ablate.study import Study

Record = Mapping[str, Any]
Cells = Mapping[str, Mapping[int, Record]]          # arm -> seed -> record


@dataclass(frozen=True)
class Outcome:
    """An arm over its seeds. solve_low, solve_high: Wilson's interval of the solve rate. diverged cells count as unsolved."""

    arm: str
    seeds: int
    solved: int
    diverged: int
    solve_low: float
    solve_high: float
    steps: st.TimeToSolve
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    loss: float
    rate: float


@dataclass(frozen=True)
class Contrast:
    """An arm less another, over the seeds that both have. p and p_equivalent: corrected within the family.

    low, high: BCa interval of the mean difference. least: what so many seeds would find, in the units of the metric.
    """

    arm: str
    than: str
    family: str
    metric: str
    seeds: int
    difference: float
    low: float
    high: float
    p: float
    p_equivalent: float
    margin: float
    least: float
    verdict: str = ""


@dataclass(frozen=True)
class Judged:
    """A claim and what became of it: confirmed, not confirmed or unclear."""

    claim: Claim
    contrast: Contrast
    answer: str


def by_arm(todo: Plan, store: Store) -> dict[str, dict[int, Record]]:
    """The finished cells that count: arm -> seed -> record."""
    counting = [one for one in todo.cells if not one.tuning]
    records = store.records(one.cell.address for one in counting)
    found: dict[str, dict[int, Record]] = {}
    for one in counting:
        if one.cell.address in records:
            found.setdefault(one.arm, {})[one.seed] = records[one.cell.address]
    return found


def value(record: Record, metric: str, study: Study) -> float:
    """A seed's number. A cell that diverged has no model: it answers as guessing would."""
    gone = record["status"] == "diverged"
    if metric == "solve_rate":
        return float(record["status"] == "solved")
    if metric == "loss":
        return math.log(study.task.vocab_size) if gone else record["held_out_loss"]
    return study.task.chance if gone else record["accuracy"]


def outcomes(study: Study, todo: Plan, found: Cells) -> list[Outcome]:
    """A row for each arm that has finished cells."""
    rows = []
    for arm, records in found.items():
        cells = list(records.values())
        solved = [cell["status"] == "solved" for cell in cells]
        accuracy, loss = ([value(cell, metric, study) for cell in cells] for metric in ("accuracy", "loss"))
        # a cell that diverged would not have solved it later: it is watched to the end
        steps = [cell["solved_at"] if done else study.train.steps for cell, done in zip(cells, solved)]
        rows.append(Outcome(arm, len(cells), sum(solved), sum(cell["status"] == "diverged" for cell in cells),
                            *st.wilson(sum(solved), len(cells)), st.time_to_solve(steps, solved), float(np.mean(accuracy)),
                            *st.interval(accuracy), float(np.mean(loss)), todo.rates[arm]))
    return rows


def contrast(study: Study, found: Cells, arm: str, than: str, family: str, metric: str, margin: float) -> Contrast | None:
    """One contrast, its p not yet corrected; None if the two have no seed in common."""
    seeds = sorted(found.get(arm, {}).keys() & found.get(than, {}).keys())
    if not seeds:
        return None
    d = np.array([value(found[arm][seed], metric, study) - value(found[than][seed], metric, study) for seed in seeds])
    n, low_high = len(d), st.interval(d)
    enough, spread = n >= st.LEAST_SEEDS, float(d.std(ddof=1)) if n > 1 else 0.0
    least = math.inf if not enough else st.detectable(n, study.alpha, study.power) * spread if spread else 0.0
    return Contrast(arm, than, family, metric, n, float(d.mean()), *low_high, float(st.sign_flip(d)) if enough else 1.0,
                    float(st.tost(d, margin)) if enough else 1.0, margin, least)


def corrected(contrasts: Sequence[Contrast], alpha: float) -> list[Contrast]:
    """p and verdicts after Holm within each family and metric; equivalence is corrected by itself."""
    done = []
    for key in dict.fromkeys((one.family, one.metric) for one in contrasts):
        family = [one for one in contrasts if (one.family, one.metric) == key]
        p, equal = st.holm([one.p for one in family]), st.holm([one.p_equivalent for one in family])
        done += [replace(one, p=a, p_equivalent=b, verdict=st.verdict(one.seeds, one.difference, a, b, alpha))
                 for one, a, b in zip(family, p, equal)]
    return done


def contrasts(study: Study, found: Cells, metrics: Iterable[str] = ("accuracy", "loss")) -> list[Contrast]:
    """Every arm against the base, in the order of the study."""
    rows = [contrast(study, found, arm.name, "base", arm.family, metric, study.margin)
            for metric in metrics for arm in study.every_arm[1:]]
    return corrected([one for one in rows if one], study.alpha)


def judged(study: Study, found: Cells) -> list[Judged]:
    """The study's claims; they are a family of their own."""
    made = [(claim, contrast(study, found, claim.arm, claim.than, "claims", claim.metric, claim.threshold or study.margin))
            for claim in study.claims]
    run = [(claim, one) for claim, one in made if one]
    p, equal = st.holm([one.p for _, one in run]), st.holm([one.p_equivalent for _, one in run])
    whole = [(claim, replace(one, p=a, p_equivalent=b, verdict=st.verdict(one.seeds, one.difference, a, b, study.alpha)))
             for (claim, one), a, b in zip(run, p, equal)]
    return [Judged(claim, one, answer(claim, one, study.alpha)) for claim, one in whole]


def answer(claim: Claim, found: Contrast, alpha: float) -> str:
    """confirmed: the test says so, and the effect is as large as was claimed. not confirmed: the data speak against it.

    unclear: they do neither.
    """
    if found.seeds < st.LEAST_SEEDS:
        return "unclear"
    shown = found.p <= alpha
    if claim.direction == "equal":
        if found.p_equivalent <= alpha:
            return "confirmed"
        return "not confirmed" if shown and abs(found.difference) > claim.threshold else "unclear"
    sign = 1 if claim.direction == "more" else -1
    effect, most = sign * found.difference, found.high if sign > 0 else -found.low
    if shown and effect > 0 and effect >= claim.threshold:
        return "confirmed"
    against = (shown and effect < 0) or most < claim.threshold or (found.p_equivalent <= alpha and not shown)
    return "not confirmed" if against else "unclear"


__all__ = ["METRICS", "Contrast", "Judged", "Outcome", "by_arm", "contrasts", "judged", "outcomes"]
