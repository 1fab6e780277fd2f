"""Which cells a study needs: first those that choose each arm's learning rate, then those that count."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from zamba_lab.ablate.cell import Cell
from zamba_lab.ablate.store import Store
from zamba_lab.ablate.study import Study


@dataclass(frozen=True)
class Planned:
    """A cell and what it is in the study. tuning: it chooses the learning rate and counts for nothing else."""

    cell: Cell
    arm: str
    seed: int
    tuning: bool


@dataclass(frozen=True)
class Plan:
    """cells: all that can be said now. rates: the learning rate of each arm that has one. waiting: the arms that have none yet.

    tried: of each tuned arm, learning rate -> what the tuning cells gave.
    """

    cells: tuple[Planned, ...]
    rates: Mapping[str, float]
    waiting: tuple[str, ...]
    tried: Mapping[str, Mapping[float, dict[str, float]]]

    def left(self, store: Store) -> list[Planned]:
        """The cells that are not finished; one that two arms share is there once."""
        done, found = store.finished(), {}
        for one in self.cells:
            if one.cell.address not in done:
                found.setdefault(one.cell.address, one)
        return list(found.values())


def plan(study: Study, store: Store | None = None) -> Plan:
    """The cells of a study. Without a store, or before its tuning is done, those that count are not known yet."""
    tuning = [
        Planned(cell_of(study, arm.name, seed, rate), arm.name, seed, True)
        for arm in study.every_arm
        for rate in study.rates
        for seed in study.tuning_seeds
    ]
    tried = _tried(tuning, store)
    if study.rates:
        rates = {arm: best(found) for arm, found in tried.items() if len(found) == len(set(study.rates))}
    else:
        rates = {arm.name: study.train.lr for arm in study.every_arm}
    counting = [Planned(cell_of(study, arm, seed, rate), arm, seed, False) for arm, rate in rates.items() for seed in study.seeds]
    waiting = tuple(arm.name for arm in study.every_arm if arm.name not in rates)
    return Plan((*tuning, *counting), rates, waiting, tried)


def cell_of(study: Study, arm: str, seed: int, rate: float) -> Cell:
    """The cell of an arm, a seed and a learning rate."""
    return Cell(
        study.matched[arm].config,
        study.task,
        replace(study.train, seed=seed, lr=rate),
        study.solved,
        study.sample,
        study.also,
        study.weights,
    )


def _tried(tuning: Iterable[Planned], store: Store | None) -> dict[str, dict[float, dict[str, float]]]:
    """Of each arm, learning rate -> mean score and steps, where every tuning seed is done."""
    records = store.records(one.cell.address for one in tuning) if store else {}
    cells: dict[tuple[str, float], list[dict[str, Any] | None]] = {}
    for one in tuning:
        cells.setdefault((one.arm, one.cell.train.lr), []).append(records.get(one.cell.address))
    found: dict[str, dict[float, dict[str, float]]] = {}
    for (arm, rate), rows in cells.items():
        if all(rows):
            found.setdefault(arm, {})[rate] = summary(rows)
    return found


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """What tuning cells of one rate gave: diverged ones count as nothing right."""
    status = [row["status"] for row in rows]
    scores = [0.0 if row["status"] == "diverged" else row["accuracy"] for row in rows]
    losses = [math.inf if row["status"] == "diverged" else row["held_out_loss"] for row in rows]
    return {
        "solved": status.count("solved"),
        "diverged": status.count("diverged"),
        "accuracy": statistics.fmean(scores),
        "steps": statistics.fmean(row["steps"] for row in rows),
        "loss": statistics.fmean(losses),
    }


def best(tried: Mapping[float, Mapping[str, float]]) -> float:
    """The rate that solves most seeds; among those, in the fewest steps; then with the lowest loss; then the lowest rate."""

    def badness(rate: float) -> tuple[float, ...]:
        found = tried[rate]
        return -found["solved"], found["steps"] if found["solved"] else 0, found["loss"], rate

    return min(tried, key=badness)
