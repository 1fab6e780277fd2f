"""Which cells a study needs: first those that choose each arm's learning rate, then those that count. And the studies that come
with the lab, and the model that a cell left behind.

    study, store = stored("quick")                    # data/studies/quick: nothing is run
    model = load_trained(study, store, "base", seed=0)
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zamba_lab.ablate.cell import Cell
from zamba_lab.ablate.store import Store
from zamba_lab.ablate.study import Study, read_study
from zamba_lab.config.presets import SHIPPED
from zamba_lab.lens.parts import parts
from zamba_lab.model import Zamba

STUDIES = SHIPPED["zamba2-nano"].parent / "studies"  # those that come with the lab, a folder each
FILE = "study.yaml"
OF_THE_MACHINE = ("python", "crc32")  # facts of a task's data that differ between machines


@dataclass(frozen=True)
class Planned:
    """A cell and what it is in the study. tuning: it chooses the learning rate and counts for nothing else."""

    cell: Cell
    arm: str
    seed: int
    tuning: bool


@dataclass(frozen=True)
class Plan:
    """cells: all that are known now. rates: the learning rate of each arm that has one. waiting: the arms that have none yet.

    tried: of each tuned arm, learning rate -> what the tuning cells gave. edges: of each tuned arm, where its rate lies among
    those: "" inside, "lowest" or "highest"; "only" if there was no other.
    """

    cells: tuple[Planned, ...]
    rates: Mapping[str, float]
    waiting: tuple[str, ...]
    tried: Mapping[str, Mapping[float, dict[str, float]]]
    edges: Mapping[str, str]

    def left(self, store: Store) -> list[Planned]:
        """The cells that are not finished; one that two arms share is there once."""
        done, left = store.finished(), {}
        for planned in self.cells:
            if planned.cell.address not in done:
                left.setdefault(planned.cell.address, planned)
        return list(left.values())


def plan(study: Study, store: Store | None = None) -> Plan:
    """The cells of a study. Without a store, or before its tuning is done, those that count are not known yet."""
    ladder, tuning, tried = _tuned(study, store)
    if ladder:
        rates = {arm: best_rate(summaries) for arm, summaries in tried.items() if len(summaries) == len(ladder)}
    else:
        rates = {arm.name: study.train.lr for arm in study.every_arm}
    counting = [Planned(cell_of(study, arm, seed, rate), arm, seed, False) for arm, rate in rates.items() for seed in study.seeds]
    waiting = tuple(arm.name for arm in study.every_arm if arm.name not in rates)
    edges = {arm: edge(summaries, rates[arm]) for arm, summaries in tried.items() if arm in rates}
    return Plan((*tuning, *counting), rates, waiting, tried, edges)


def _tuned(study: Study, store: Store | None) -> tuple[list[float], list[Planned], dict[str, dict[float, dict[str, float]]]]:
    """The rates that are tried, for every arm the same; their cells; and what those that are done gave.

    While the best rate of any arm is at an edge, the ladder goes on there by its last ratio, at most study.extend rates on a side.
    """
    ladder, added = sorted(set(study.rates)), {"lowest": 0, "highest": 0}
    while True:
        tuning = [
            Planned(cell_of(study, arm.name, seed, rate), arm.name, seed, True)
            for arm in study.every_arm
            for rate in ladder
            for seed in study.tuning_seeds
        ]
        tried = _tried(tuning, store)
        if len(tried) < len(study.every_arm) or any(len(summaries) < len(ladder) for summaries in tried.values()):
            return ladder, tuning, tried
        sides = {edge(summaries, best_rate(summaries)) for summaries in tried.values()} & added.keys()
        if not (grown := {side for side in sides if added[side] < study.extend}):
            return ladder, tuning, tried
        for side in grown:
            added[side] += 1
        below = [ladder[0] ** 2 / ladder[1]] if "lowest" in grown else []
        above = [ladder[-1] ** 2 / ladder[-2]] if "highest" in grown else []
        ladder = [float(f"{rate:.4g}") for rate in below] + ladder + [float(f"{rate:.4g}") for rate in above]


def edge(tried: Mapping[float, object], rate: float) -> str:
    """Where a rate lies among those that were tried: `Plan.edges`."""
    return "only" if len(tried) < 2 else {min(tried): "lowest", max(tried): "highest"}.get(rate, "")


def cell_of(study: Study, arm: str, seed: int, rate: float) -> Cell:
    """The cell of an arm, a seed and a learning rate."""
    training = replace(study.train, seed=seed, lr=rate)
    config = study.matched[arm].config
    costs = tuple(part for part in study.costs if part in parts(config))
    return Cell(config, study.task, training, study.solved, study.sample, study.also, study.weights, study.until, costs)


def _tried(tuning: Iterable[Planned], store: Store | None) -> dict[str, dict[float, dict[str, float]]]:
    """Of each arm, learning rate -> mean score and steps, where every tuning seed is done."""
    records = store.records(planned.cell.address for planned in tuning) if store else {}
    cells: dict[tuple[str, float], list[dict[str, Any] | None]] = {}
    for planned in tuning:
        cells.setdefault((planned.arm, planned.cell.train.lr), []).append(records.get(planned.cell.address))
    tried: dict[str, dict[float, dict[str, float]]] = {}
    for (arm, rate), rows in cells.items():
        if all(rows):
            tried.setdefault(arm, {})[rate] = summary(rows)
    return tried


def summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """What tuning cells of one rate gave: diverged ones count as nothing right."""
    status = [row["status"] for row in rows]
    return {
        "solved": status.count("solved"),
        "diverged": status.count("diverged"),
        "accuracy": statistics.fmean(0.0 if row["status"] == "diverged" else row["accuracy"] for row in rows),
        "steps": statistics.fmean(row["solved_at"] or row["steps"] for row in rows),
        "loss": statistics.fmean(math.inf if row["status"] == "diverged" else row["held_out_loss"] for row in rows),
    }


def best_rate(summaries: Mapping[float, Mapping[str, float]]) -> float:
    """The rate that solves most seeds; among those, in the fewest steps; then with the lowest loss; then the lowest rate."""

    def badness(rate: float) -> tuple[float, ...]:
        row = summaries[rate]
        return -row["solved"], row["steps"] if row["solved"] else 0, row["loss"], rate

    return min(summaries, key=badness)


def load_trained(study: Study, store: str | Path | Store, arm: str, seed: int) -> Zamba:
    """The trained model of an arm and a seed, ready for inference.

    Raises ValueError if the study has no such cell, or its weights were not kept (a study keeps them with `weights: true`).
    """
    store = store if isinstance(store, Store) else Store(store)
    key = arm, seed, False
    cells = [planned.cell for planned in plan(study, store).cells if (planned.arm, planned.seed, planned.tuning) == key]
    if not cells:
        raise ValueError(
            f"the study {study.name!r} has no cell of arm {arm!r} and seed {seed}: there are the arms "
            f"{', '.join(known.name for known in study.every_arm)} and the seeds {study.seeds}"
        )
    model = Zamba(cells[0].config)
    model.load_state_dict(store.load_weights(cells[0].address))
    return model.eval()


def stored_names() -> list[str]:
    """The studies that come with the lab."""
    return sorted(file.parent.name for file in STUDIES.glob(f"*/{FILE}"))


def study_file(study: str | Path) -> Path:
    """The file of a study: a path, or the name of one that comes with the lab. Raises ValueError if it is neither."""
    if Path(study).is_file():
        return Path(study)
    if str(study) in stored_names():
        return STUDIES / str(study) / FILE
    raise ValueError(f"a study is a .yaml or .json file, or one of {', '.join(stored_names())}: got {str(study)!r}")


def stored(name: str) -> tuple[Study, Store]:
    """A study that comes with the lab, and the store of its results. Raises ValueError if there is none, or none was run."""
    file = study_file(name)
    if not (folder := file.parent / "store").exists():
        raise ValueError(f"no results of {name!r} come with the lab: zamba-lab ablate run {name} makes them")
    study, store = read_study(file), Store(folder)
    return replace(study, task=task_of_results(study.task, store)), store


def task_of_results(task: Any, store: Store) -> Any:
    """The task as the store's cells had it: real text is another with another version of Python, and so are its cells."""
    here = {name: value for name, value in task.facts().items() if name not in OF_THE_MACHINE}
    known = [json.loads(row["task"]) for row in store.query("select distinct task from cells")]
    same = [
        facts
        for facts in known
        if facts.keys() == task.facts().keys() and here == {name: value for name, value in facts.items() if name in here}
    ]
    return DataElsewhere(task, same[0]) if len(same) == 1 and same[0] != task.facts() else task


class DataElsewhere:
    """A task on data of another machine: its results can be read; no new cell can be run."""

    def __init__(self, task: Any, facts: dict[str, Any]):
        self._task, self._facts = task, facts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def facts(self) -> dict[str, Any]:
        return self._facts

    def batch(self, seed: int, step: int, n: int) -> Any:
        raise ValueError(
            f"these results are of data that is not here ({', '.join(f'{k} {self._facts[k]}' for k in OF_THE_MACHINE)}"
            "): a study of the same file, run here, is another one, with cells of its own"
        )

    unseen = batch
