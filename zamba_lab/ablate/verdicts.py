"""From a store to answers: each arm's outcome, each contrast with the base, each claim."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from zamba_lab.ablate import statistics as st
from zamba_lab.ablate.arms import BASE
from zamba_lab.ablate.planning import Plan
from zamba_lab.ablate.store import Store
from zamba_lab.ablate.study import SLICE, Claim, Study

SIDES = {"more": "greater", "less": "less", "equal": "two-sided"}
OPPOSITE = {"greater": "less", "less": "greater"}
TESTS = ("p", "p_alike", "p_equivalent", "p_against")
Record = Mapping[str, Any]
Cells = Mapping[str, Mapping[int, Record]]  # arm -> seed -> record


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
    """An arm less another, over the seeds that both have. What starts with p is corrected within family and metric.

    low, high: BCa interval of the mean difference. p: that they are the same. p_alike: TOST. p_equivalent: of both TOST and
    `bounded`. p_against: as p, against the direction that was claimed; 1 if none was. alike: the seeds within the margin.
    least: the least difference that so many seeds find, in the units of the metric, corrected for the family; inf where so few
    seeds find nothing, whatever the effect.
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
    p_alike: float
    p_equivalent: float
    p_against: float
    alike: int
    margin: float
    least: float
    verdict: str = ""


@dataclass(frozen=True)
class ClaimResult:
    """A claim and what became of it: confirmed, not confirmed or unclear."""

    claim: Claim
    contrast: Contrast
    answer: str


def by_arm(todo: Plan, store: Store) -> dict[str, dict[int, Record]]:
    """The finished cells that count: arm -> seed -> record."""
    counting = [planned for planned in todo.cells if not planned.tuning]
    records = store.records(planned.cell.address for planned in counting)
    cells: dict[str, dict[int, Record]] = {}
    for planned in counting:
        if planned.cell.address in records:
            cells.setdefault(planned.arm, {})[planned.seed] = records[planned.cell.address]
    return cells


def value(record: Record, metric: str, study: Study) -> float:
    """A seed's number. A cell that diverged has no model: it answers as guessing would, and never solves its task."""
    diverged = record["status"] == "diverged"
    if metric == "solve_rate":
        return float(record["status"] == "solved")
    if metric == "steps":
        return float(record["solved_at"] or study.train.steps)
    if metric == "accuracy":
        return study.task.chance if diverged else record["accuracy"]
    return math.log(study.task.vocab_size) if diverged else _loss(record, metric)


def _loss(record: Record, metric: str) -> float:
    """The held-out loss, or that of a slice. Raises ValueError if the task has no such slice."""
    slices = json.loads(record["slices"])
    if metric != "loss" and metric not in slices:
        raise ValueError(f"the task has no slice for the metric {metric!r}: there are {', '.join(sorted(slices)) or 'none'}")
    return record["held_out_loss"] if metric == "loss" else slices[metric]


def margin_of(study: Study, metric: str) -> float:
    """The least difference that matters: of steps, the distance of two evaluations, for nothing finer is measured."""
    return float(study.train.evaluate_every) if metric == "steps" else study.margin


def reach_of(study: Study, metric: str) -> float:
    """The most that two seeds can differ by: all the steps, the loss of guessing, or an accuracy of 1."""
    if metric == "steps":
        return float(study.train.steps)
    return math.log(study.task.vocab_size) if metric == "loss" or metric.startswith(SLICE) else 1.0


def outcomes(study: Study, todo: Plan, cells: Cells) -> list[Outcome]:
    """A row for each arm that has finished cells."""
    return [_outcome(study, arm, list(records.values()), todo.rates[arm]) for arm, records in cells.items()]


def _outcome(study: Study, arm: str, records: list[Record], rate: float) -> Outcome:
    solved = [record["status"] == "solved" for record in records]
    accuracy, loss = ([value(record, metric, study) for record in records] for metric in ("accuracy", "loss"))
    solve_low, solve_high = st.wilson(sum(solved), len(records))
    accuracy_low, accuracy_high = st.interval(accuracy)
    return Outcome(
        arm=arm,
        seeds=len(records),
        solved=sum(solved),
        diverged=sum(record["status"] == "diverged" for record in records),
        solve_low=solve_low,
        solve_high=solve_high,
        # a cell that diverged would not have solved it later: it counts as watched to the end
        steps=st.time_to_solve([record["solved_at"] or study.train.steps for record in records], solved),
        accuracy=float(np.mean(accuracy)),
        accuracy_low=accuracy_low,
        accuracy_high=accuracy_high,
        loss=float(np.mean(loss)),
        rate=rate,
    )


def contrast(
    study: Study, cells: Cells, arm: str, than: str, family: str, metric: str, margin: float, alternative: str = "two-sided"
) -> Contrast | None:
    """One contrast, its p not yet corrected and its `least` in standard deviations; None if the two have no seed in common.

    alternative: "greater" or "less" where the direction was claimed.
    """
    seeds = sorted(cells.get(arm, {}).keys() & cells.get(than, {}).keys())
    if not seeds:
        return None
    d = np.array([value(cells[arm][seed], metric, study) - value(cells[than][seed], metric, study) for seed in seeds])
    p = dict.fromkeys(TESTS, 1.0)
    if len(d) >= st.LEAST_SEEDS:
        p["p"], p["p_alike"] = float(st.sign_flip(d, alternative)), float(st.tost(d, margin))
        p["p_equivalent"] = max(p["p_alike"], float(st.bounded(d, margin, reach_of(study, metric))))
        if alternative in OPPOSITE:
            p["p_against"] = float(st.sign_flip(d, OPPOSITE[alternative]))
    low, high = st.interval(d)
    return Contrast(
        arm=arm,
        than=than,
        family=family,
        metric=metric,
        seeds=len(d),
        difference=float(d.mean()),
        low=low,
        high=high,
        **p,
        alike=int((np.abs(d) <= margin).sum()),
        margin=margin,
        least=float(d.std(ddof=1)) if len(d) > 1 else 0.0,
    )


def corrected(study: Study, contrasts: Sequence[Contrast]) -> list[Contrast]:
    """p, verdicts and least differences after Holm within each family and metric; each kind of p is corrected by itself."""
    done = {}
    for key in dict.fromkeys((each.family, each.metric) for each in contrasts):
        at = [k for k, each in enumerate(contrasts) if (each.family, each.metric) == key]
        p = {name: st.holm([getattr(contrasts[k], name) for k in at]) for name in TESTS}
        for j, k in enumerate(at):
            each = replace(contrasts[k], **{name: p[name][j] for name in TESTS}, least=least(study, contrasts[k], len(at)))
            verdict = st.verdict(each.seeds, each.difference, each.p, each.p_alike, each.p_equivalent, each.alike, study.alpha)
            done[k] = replace(each, verdict=verdict)
    return [done[k] for k in sorted(done)]


def least(study: Study, contrast: Contrast, family: int) -> float:
    """The least difference that the seeds find in a family of so many contrasts; contrast.least is still the standard deviation."""
    deviations = st.detectable(contrast.seeds, study.alpha / family, study.power)
    return deviations * contrast.least if math.isfinite(deviations) else math.inf


def contrasts(study: Study, cells: Cells, metrics: Iterable[str] | None = None) -> list[Contrast]:
    """Every arm against the base by each metric (the study's own if left out), in the order of the study."""
    rows = [
        contrast(study, cells, arm.name, BASE, arm.family, metric, margin_of(study, metric))
        for metric in (study.metrics if metrics is None else metrics)
        for arm in study.every_arm[1:]
    ]
    return corrected(study, [row for row in rows if row])


def claim_results(study: Study, cells: Cells) -> list[ClaimResult]:
    """The study's claims, in the direction that they name, corrected with the others of the same axis and metric."""
    family = {arm.name: arm.family for arm in study.every_arm}
    pairs = []
    for claim in study.claims:
        margin, side = claim.threshold or margin_of(study, claim.metric), SIDES[claim.direction]
        if each := contrast(study, cells, claim.arm, claim.than, family[claim.arm], claim.metric, margin, side):
            pairs.append((claim, each))
    final = corrected(study, [each for _, each in pairs])
    return [ClaimResult(claim, each, answer(claim, each, study.alpha)) for (claim, _), each in zip(pairs, final)]


def answer(claim: Claim, result: Contrast, alpha: float) -> str:
    """confirmed: the test says so, and the effect is as large as was claimed. not confirmed: the data speak against it, for the
    opposite or for a mean that is smaller, whatever the distribution. unclear: they do neither.

    An interval of few seeds that all came out well does not speak against a claim: seeds that fail may just not be among them.
    """
    if result.seeds < st.LEAST_SEEDS:
        return "unclear"
    shown = result.p <= alpha
    if claim.direction == "equal":
        if result.p_equivalent <= alpha:
            return "confirmed"
        return "not confirmed" if shown and abs(result.difference) > claim.threshold else "unclear"
    sign = 1 if claim.direction == "more" else -1
    effect, most = sign * result.difference, result.high if sign > 0 else -result.low
    if shown and effect > 0 and effect >= claim.threshold:
        return "confirmed"
    against = result.p_equivalent <= alpha or (result.p_against <= alpha and most < claim.threshold)
    return "not confirmed" if against else "unclear"
