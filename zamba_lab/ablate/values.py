"""A cell's number by each metric, and where that number says nothing more."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from zamba_lab.ablate.claims import named
from zamba_lab.ablate.study import Study

Record = Mapping[str, Any]
Cells = Mapping[str, Mapping[int, Record]]  # arm -> seed -> record


def value(record: Record, metric: str, study: Study) -> float:
    """A seed's number. A cell that diverged has no model: it answers as guessing would, never solves its task, and has no parts."""
    diverged = record["status"] == "diverged"
    if metric == "solve_rate":
        return float(record["status"] == "solved")
    if metric == "steps":
        return float(record["solved_at"] or study.train.steps)
    if metric == "accuracy":
        return study.task.chance if diverged else record["accuracy"]
    if task := named(metric, "accuracy."):
        return study.also[task].chance if diverged else json.loads(record["also"])[task]
    if named(metric, "cost."):
        # nothing that is there: in a model without the part it costs nothing to replace it
        return 0.0 if diverged else json.loads(record.get("measures") or "{}").get(metric, 0.0)
    return math.log(study.task.vocab_size) if diverged else _loss(record, metric)


def _loss(record: Record, metric: str) -> float:
    """The held-out loss, or that of a slice. Raises ValueError if the task has no such slice."""
    slices = json.loads(record["slices"])
    if metric != "loss" and metric not in slices:
        raise ValueError(f"the task has no slice for the metric {metric!r}: there are {', '.join(sorted(slices)) or 'none'}")
    return record["held_out_loss"] if metric == "loss" else slices[metric]


def at_the_end(record: Record, metric: str, study: Study) -> bool:
    """Whether a seed's number says no more than that the task was solved, or, of steps, that it was not."""
    if metric == "steps":
        return not record["solved_at"]
    if metric.startswith(("accuracy", "solve_rate")):
        return value(record, metric, study) >= (1.0 if metric == "solve_rate" else study.solved)
    return study.until == "solved" and record["status"] == "solved"  # losses of models that were stopped at that accuracy


def margin_of(study: Study, metric: str) -> float:
    """The least difference that matters: the study's margin; of steps the distance of two evaluations, for nothing finer is measured."""
    return float(study.train.evaluate_every) if metric == "steps" else study.margin
