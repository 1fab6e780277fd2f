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
    `bounded`. p_against: as p, against the direction that was said beforehand; 1 if none was. alike: the seeds within the margin.
    least: what so many seeds would find, in the units of the metric, after the correction for a whole family; inf where so few
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


def reach_of(study: Study, metric: str) -> float:
    """The most that two seeds can differ by: all the steps, the loss of guessing, or all the accuracy there is."""
    if metric == "steps":
        return float(study.train.steps)
    return math.log(study.task.vocab_size) if metric == "loss" or metric.startswith(SLICE) else 1.0


def outcomes(study: Study, todo: Plan, found: Cells) -> list[Outcome]:
    """A row for each arm that has finished cells."""
    rows = []
    for arm, records in found.items():
        cells = list(records.values())
        solved = [cell["status"] == "solved" for cell in cells]
        accuracy, loss = ([value(cell, metric, study) for cell in cells] for metric in ("accuracy", "loss"))
        # a cell that diverged would not have solved it later: it is watched to the end
        steps = [cell["solved_at"] if done else study.train.steps for cell, done in zip(cells, solved)]
        rows.append(
            Outcome(
                arm,
                len(cells),
                sum(solved),
                sum(cell["status"] == "diverged" for cell in cells),
                *st.wilson(sum(solved), len(cells)),
                st.time_to_solve(steps, solved),
                float(np.mean(accuracy)),
                *st.interval(accuracy),
                float(np.mean(loss)),
                todo.rates[arm],
            )
        )
    return rows


def contrast(
    study: Study, found: Cells, arm: str, than: str, family: str, metric: str, margin: float, alternative: str = "two-sided"
) -> Contrast | None:
    """One contrast, its p not yet corrected and its `least` in standard deviations; None if the two have no seed in common.

    alternative: "greater" or "less" where the direction was said beforehand.
    """
    seeds = sorted(found.get(arm, {}).keys() & found.get(than, {}).keys())
    if not seeds:
        return None
    d = np.array([value(found[arm][seed], metric, study) - value(found[than][seed], metric, study) for seed in seeds])
    p = p_alike = p_equivalent = p_against = 1.0
    if len(d) >= st.LEAST_SEEDS:
        p, p_alike = float(st.sign_flip(d, alternative)), float(st.tost(d, margin))
        p_equivalent = max(p_alike, float(st.bounded(d, margin, reach_of(study, metric))))
        p_against = float(st.sign_flip(d, OPPOSITE[alternative])) if alternative in OPPOSITE else 1.0
    return Contrast(
        arm,
        than,
        family,
        metric,
        len(d),
        float(d.mean()),
        *st.interval(d),
        p,
        p_alike,
        p_equivalent,
        p_against,
        int((np.abs(d) <= margin).sum()),
        margin,
        float(d.std(ddof=1)) if len(d) > 1 else 0.0,
    )


def corrected(study: Study, contrasts: Sequence[Contrast]) -> list[Contrast]:
    """p, verdicts and least differences after Holm within each family and metric; each kind of p is corrected by itself."""
    done = {}
    for key in dict.fromkeys((one.family, one.metric) for one in contrasts):
        at = [k for k, one in enumerate(contrasts) if (one.family, one.metric) == key]
        p = {name: st.holm([getattr(contrasts[k], name) for k in at]) for name in TESTS}
        for j, k in enumerate(at):
            one = replace(contrasts[k], **{name: p[name][j] for name in TESTS}, least=least(study, contrasts[k], len(at)))
            said = st.verdict(one.seeds, one.difference, one.p, one.p_alike, one.p_equivalent, one.alike, study.alpha)
            done[k] = replace(one, verdict=said)
    return [done[k] for k in sorted(done)]


def least(study: Study, one: Contrast, family: int) -> float:
    """What the seeds would find of a contrast in a family of so many, its `least` being the standard deviation yet."""
    if one.seeds < st.LEAST_SEEDS:
        return math.inf
    found = st.detectable(one.seeds, study.alpha / family, study.power)
    return found * one.least if math.isfinite(found) else math.inf


def contrasts(study: Study, found: Cells, metrics: Iterable[str] | None = None) -> list[Contrast]:
    """Every arm against the base by each metric (the study's own if left out), in the order of the study."""
    rows = [
        contrast(study, found, arm.name, "base", arm.family, metric, margin_of(study, metric))
        for metric in (study.metrics if metrics is None else metrics)
        for arm in study.every_arm[1:]
    ]
    return corrected(study, [one for one in rows if one])


def judged(study: Study, found: Cells) -> list[Judged]:
    """The study's claims, in the direction that they name, corrected with the others of the same axis and metric."""
    family = {arm.name: arm.family for arm in study.every_arm}
    made = [
        (
            claim,
            contrast(
                study,
                found,
                claim.arm,
                claim.than,
                family[claim.arm],
                claim.metric,
                claim.threshold or margin_of(study, claim.metric),
                SIDES[claim.direction],
            ),
        )
        for claim in study.claims
    ]
    run = [(claim, one) for claim, one in made if one]
    whole = corrected(study, [one for _, one in run])
    return [Judged(claim, one, answer(claim, one, study.alpha)) for (claim, _), one in zip(run, whole)]


def answer(claim: Claim, found: Contrast, alpha: float) -> str:
    """confirmed: the test says so, and the effect is as large as was claimed. not confirmed: the data speak against it, for the
    opposite or for a mean that is smaller, whatever the distribution. unclear: they do neither.

    An interval of few seeds that all came out well does not speak against a claim: seeds that fail may just not be among them.
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
    against = found.p_equivalent <= alpha or (found.p_against <= alpha and most < claim.threshold)
    return "not confirmed" if against else "unclear"
