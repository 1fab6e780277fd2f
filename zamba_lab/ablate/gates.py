"""Whether what a study takes for granted is so: measured in every seed, before any answer is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zamba_lab.ablate.arms import BASE
from zamba_lab.ablate.claims import EACH, RATE, Claim, Gate
from zamba_lab.ablate.planning import Plan
from zamba_lab.ablate.study import Study
from zamba_lab.ablate.values import Cells, value


@dataclass(frozen=True)
class GateResult:
    """A gate for one arm. values: one for each seed that is done. held: seeds that pass; passed: enough do; None: nothing is known yet."""

    gate: Gate
    arm: str
    values: tuple[float, ...]
    level: float
    held: int
    passed: bool | None


def gate_results(study: Study, todo: Plan, cells: Cells) -> list[GateResult]:
    """Every gate of the study, for each of its arms."""
    every = [arm.name for arm in study.every_arm]
    return [_result(study, todo, cells, gate, arm) for gate in study.gates for arm in (every if gate.arm == EACH else [gate.arm])]


def _result(study: Study, todo: Plan, cells: Cells, gate: Gate, arm: str) -> GateResult:
    if gate.metric == RATE:
        values = (float(not todo.edges[arm]),) if arm in todo.edges else ()
    else:
        values = tuple(value(record, gate.metric, study) for record in cells.get(arm, {}).values())
    level = gate.level(study.task, study.margin)
    held = sum(gate.holds(each, level) for each in values)
    return GateResult(gate, arm, values, level, held, held >= gate.share * len(values) if values else None)


def failed(claim: Claim, gates: Sequence[GateResult]) -> str:
    """Why gates allow no answer to a claim: the first that does not hold of what the claim depends on. "" if all hold."""
    for result in gates:
        decides = result.arm in claim.weights or (result.arm == BASE and result.gate.arm == BASE)
        if decides and not result.passed:
            return f"{'not known yet' if result.passed is None else 'the gate fails'}: {result.gate.text}, {result.arm}"
    return ""
