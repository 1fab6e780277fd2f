"""From a store to answers: each arm's outcome, each gate, each claim, each contrast with the base."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from zamba_lab.ablate import statistics as st
from zamba_lab.ablate.claims import Claim
from zamba_lab.ablate.design import detectable
from zamba_lab.ablate.gates import GateResult, failed
from zamba_lab.ablate.judging import against, corrected, p_value
from zamba_lab.ablate.planning import Plan
from zamba_lab.ablate.store import Store
from zamba_lab.ablate.study import Study
from zamba_lab.ablate.values import Cells, Record, at_the_end, margin_of, value


@dataclass(frozen=True)
class Outcome:
    """An arm over its seeds. solve_low, solve_high: Wilson's interval of the solve rate. accuracy: the median, and the interval
    that holds it; nan below LEAST_SEEDS. mean_accuracy, loss: means. diverged cells count as unsolved."""

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
    mean_accuracy: float
    loss: float
    rate: float


@dataclass(frozen=True)
class Result:
    """A claim, or a contrast with the base, and what became of it.

    mean, median: of the paired differences; low, high: the interval that holds the median, nan below LEAST_SEEDS. p, p_against: by
    itself, that the claim is false, and that the effect is at least what was claimed; p_study: p after Holm in its family. within: seeds
    that differ by at most the threshold, or else the margin. least: the least difference beyond the threshold that so many seeds find;
    inf where they find none, whatever it is. alone: "confirmed", "refuted" or "unclear", by p and p_against. answer: "confirmed" or
    "unclear", by p_study; or "no answer", and why.
    """

    claim: Claim
    seeds: int
    mean: float
    median: float
    low: float
    high: float
    p: float
    p_against: float
    p_study: float
    within: int
    least: float
    alone: str
    answer: str
    why: str

    @property
    def arm(self) -> str:
        return self.claim.arm

    @property
    def metric(self) -> str:
        return self.claim.metric

    @property
    def verdict(self) -> str:
        """Of a contrast: more, less, or no verdict and why."""
        if self.answer == "confirmed":
            return "more" if self.mean > 0 else "less"
        return f"no verdict ({self.why})" if self.why else "no verdict"


def by_arm(todo: Plan, store: Store) -> dict[str, dict[int, Record]]:
    """The finished cells that count: arm -> seed -> record."""
    counting = [planned for planned in todo.cells if not planned.tuning]
    records = store.records(planned.cell.address for planned in counting)
    cells: dict[str, dict[int, Record]] = {}
    for planned in counting:
        if planned.cell.address in records:
            cells.setdefault(planned.arm, {})[planned.seed] = records[planned.cell.address]
    return cells


def outcomes(study: Study, todo: Plan, cells: Cells) -> list[Outcome]:
    """A row for each arm that has finished cells."""
    return [_outcome(study, arm, list(records.values()), todo.rates[arm]) for arm, records in cells.items()]


def _outcome(study: Study, arm: str, records: list[Record], rate: float) -> Outcome:
    solved = [bool(record["solved_at"]) for record in records]
    accuracy, loss = ([value(record, metric, study) for record in records] for metric in ("accuracy", "loss"))
    solve_low, solve_high = st.wilson(sum(solved), len(records))
    accuracy_low, accuracy_high = st.median_interval(accuracy)
    return Outcome(
        arm=arm,
        seeds=len(records),
        solved=sum(solved),
        diverged=sum(record["status"] == "diverged" for record in records),
        solve_low=solve_low,
        solve_high=solve_high,
        # a cell that diverged would not have solved it later: it counts as watched to the end
        steps=st.time_to_solve([record["solved_at"] or study.train.steps for record in records], solved),
        accuracy=float(np.median(accuracy)),
        accuracy_low=accuracy_low,
        accuracy_high=accuracy_high,
        mean_accuracy=float(np.mean(accuracy)),
        loss=float(np.mean(loss)),
        rate=rate,
    )


def differences(study: Study, cells: Cells, claim: Claim) -> np.ndarray:
    """The paired differences that a claim is about, one for each seed that all its arms have. (n,)"""
    seeds = _shared(cells, claim)
    values = [[weight * value(cells[arm][seed], claim.metric, study) for arm, weight in claim.weights.items()] for seed in seeds]
    return np.array([sum(row) for row in values], dtype=float)


def _shared(cells: Cells, claim: Claim) -> list[int]:
    return sorted(set.intersection(*(set(cells.get(arm, {})) for arm in claim.weights)))


def results(study: Study, cells: Cells, claims: Sequence[Claim], gates: Sequence[GateResult] = (), note: str = "") -> list[Result]:
    """What became of claims: those that have a seed. Claims of one family are corrected for all of it, whether they have cells or not.

    note: why none of them has an answer.
    """
    d = [differences(study, cells, claim) for claim in claims]
    p = np.array([p_value(claim, each, study.reach(claim.metric)) if len(each) else 1.0 for claim, each in zip(claims, d)])
    p_study = corrected(claims, p)
    sizes = [1 if note else sum(other.family == claim.family for other in claims) for claim in claims]
    return [
        _result(study, claims[k], d[k], float(p[k]), float(p_study[k]), sizes[k], _why(study, cells, claims[k], gates) or note)
        for k in range(len(claims))
        if len(d[k])
    ]


def _result(study: Study, claim: Claim, d: np.ndarray, p: float, p_study: float, size: int, why: str) -> Result:
    p_against = float(against(claim, d)) if len(d) >= st.LEAST_SEEDS else 1.0
    low, high = st.median_interval(d)
    deviation = float(d.std(ddof=1)) if len(d) > 1 else 0.0
    least = detectable(claim, len(d), study.alpha / size, study.power)
    return Result(
        claim=claim,
        seeds=len(d),
        mean=float(d.mean()),
        median=float(np.median(d)),
        low=low,
        high=high,
        p=p,
        p_against=p_against,
        p_study=p_study,
        within=int((np.abs(d) <= (claim.threshold or margin_of(study, claim.metric))).sum()),
        least=least * deviation if math.isfinite(least) else math.inf,
        alone="unclear" if why else "confirmed" if p <= study.alpha else "refuted" if p_against <= study.alpha else "unclear",
        answer="no answer" if why else "confirmed" if p_study <= study.alpha else "unclear",
        why=why,
    )


def _why(study: Study, cells: Cells, claim: Claim, gates: Sequence[GateResult]) -> str:
    """Why a claim has no answer, whatever its p; "" if nothing stands in its way."""
    n = len(_shared(cells, claim))
    few = f"{n} seeds, {st.LEAST_SEEDS} needed" if n < st.LEAST_SEEDS else ""
    return failed(claim, gates) or few or _blind(study, cells, claim)


def _blind(study: Study, cells: Cells, claim: Claim) -> str:
    """Why the metric cannot tell the arms of a claim apart: in most seeds all of them are at its end."""
    seeds, arms = _shared(cells, claim), claim.weights
    ended = sum(all(at_the_end(cells[arm][seed], claim.metric, study) for arm in arms) for seed in seeds)
    if 2 * ended <= len(seeds):
        return ""
    what = "none had solved it" if claim.metric == "steps" else "all had solved it"
    return f"{claim.metric} cannot tell: in {ended} of {len(seeds)} seeds {what}"


def contrasts(study: Study, cells: Cells, metrics: Iterable[str] | None = None, gates: Sequence[GateResult] = ()) -> list[Result]:
    """Every arm against the base by each metric (the study's own if left out), one family; in a study with claims they have no verdict."""
    asked = study.contrasts(study.metrics if metrics is None else metrics)
    return results(study, cells, asked, gates, "exploratory" if study.claims else "")


def claim_results(study: Study, cells: Cells, gates: Sequence[GateResult] = ()) -> list[Result]:
    """The study's claims."""
    return results(study, cells, study.claims, gates)
