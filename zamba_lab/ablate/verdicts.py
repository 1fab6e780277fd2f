"""From a store to answers: each arm's outcome, each contrast with the base, each claim."""
from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zamba_lab.ablate import statistics as st
from zamba_lab.ablate.claims import SLICE, Claim
from zamba_lab.ablate.planning import Plan
from zamba_lab.ablate.store import Store
from zamba_lab.ablate.study import Study

SIDES = {"more": "greater", "less": "less", "equal": "two-sided"}
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

    low, high: BCa interval of the mean difference. least: what so many seeds would find, in the units of the metric, after
    the correction for a whole family; inf where so few seeds find nothing, whatever the effect.
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
    """A seed's number. A cell that diverged has no model: it answers as guessing would, and never solves its task."""
    gone = record["status"] == "diverged"
    if metric == "solve_rate":
        return float(record["status"] == "solved")
    if metric == "steps":
        return float(record["solved_at"] or study.train.steps)
    if metric == "loss" or metric.startswith(SLICE):
        return math.log(study.task.vocab_size) if gone else loss_of(record, metric)
    return study.task.chance if gone else record["accuracy"]


def loss_of(record: Record, metric: str) -> float:
    """The held-out loss, or that of a slice. Raises ValueError if the task has no such slice."""
    slices = json.loads(record["slices"])
    if metric != "loss" and metric not in slices:
        raise ValueError(f"the task has no slice for the metric {metric!r}: there are {', '.join(sorted(slices)) or 'none'}")
    return record["held_out_loss"] if metric == "loss" else slices[metric]


def margin_of(study: Study, metric: str) -> float:
    """The least difference that matters: of steps, the distance of two evaluations, for nothing finer is seen."""
    return float(study.train.evaluate_every) if metric == "steps" else study.margin


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


def contrast(study: Study, found: Cells, arm: str, than: str, family: str, metric: str, margin: float,
             alternative: str = "two-sided") -> Contrast | None:
    """One contrast, its p not yet corrected and its `least` in standard deviations; None if the two have no seed in common.

    alternative: "greater" or "less" where the direction was said beforehand.
    """
    seeds = sorted(found.get(arm, {}).keys() & found.get(than, {}).keys())
    if not seeds:
        return None
    d = np.array([value(found[arm][seed], metric, study) - value(found[than][seed], metric, study) for seed in seeds])
    n, enough = len(d), len(d) >= st.LEAST_SEEDS
    return Contrast(arm, than, family, metric, n, float(d.mean()), *st.interval(d),
                    float(st.sign_flip(d, alternative)) if enough else 1.0, float(st.tost(d, margin)) if enough else 1.0, margin,
                    float(d.std(ddof=1)) if n > 1 else 0.0)


def corrected(study: Study, contrasts: Sequence[Contrast]) -> list[Contrast]:
    """p, verdicts and least differences after Holm within each family and metric; equivalence is corrected by itself."""
    done = {}
    for key in dict.fromkeys((one.family, one.metric) for one in contrasts):
        at = [k for k, one in enumerate(contrasts) if (one.family, one.metric) == key]
        p, equal = st.holm([contrasts[k].p for k in at]), st.holm([contrasts[k].p_equivalent for k in at])
        for k, a, b in zip(at, p, equal):
            one = contrasts[k]
            done[k] = replace(one, p=a, p_equivalent=b, least=least(study, one, len(at)),
                              verdict=st.verdict(one.seeds, one.difference, a, b, study.alpha))
    return [done[k] for k in sorted(done)]


def least(study: Study, one: Contrast, family: int) -> float:
    """What the seeds would find of a contrast in a family of so many, its `least` being the standard deviation yet."""
    if one.seeds < st.LEAST_SEEDS:
        return math.inf
    found = st.detectable(one.seeds, study.alpha / family, study.power)
    return found * one.least if math.isfinite(found) else math.inf


def contrasts(study: Study, found: Cells, metrics: Iterable[str] | None = None) -> list[Contrast]:
    """Every arm against the base by each metric (the study's own if left out), in the order of the study."""
    rows = [contrast(study, found, arm.name, "base", arm.family, metric, margin_of(study, metric))
            for metric in (study.metrics if metrics is None else metrics) for arm in study.every_arm[1:]]
    return corrected(study, [one for one in rows if one])


def judged(study: Study, found: Cells) -> list[Judged]:
    """The study's claims, in the direction that they name, corrected with the other claims on the axis of their arm."""
    family = {arm.name: arm.family for arm in study.every_arm}
    made = [(claim, contrast(study, found, claim.arm, claim.than, family[claim.arm], claim.metric,
                             claim.threshold or margin_of(study, claim.metric), SIDES[claim.direction]))
            for claim in study.claims]
    run = [(claim, one) for claim, one in made if one]
    whole = corrected(study, [one for _, one in run])
    return [Judged(claim, one, answer(claim, one, study.alpha)) for (claim, _), one in zip(run, whole)]


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
    against = most < claim.threshold or (found.p_equivalent <= alpha and not shown)
    return "not confirmed" if against else "unclear"

