"""A study as one value: a base, what differs from it, the task, how it is trained, and what counts as an answer.

    study = Study("rope", base, tasks.get("mqar"), TrainConfig(steps=800, batch=64, length=32), axes={"rope": [True, False]})
    study = read_study("studies/rope.yaml")           # the same from a file

A file's keys are the fields of `Study`; `base` is a preset's name or fields over it, `task` the arguments of `tasks.get`, `train`
the fields of TrainConfig.

What is trusted: a file is data. Reading, planning, running or reporting a study runs no code that its file names, and writes nothing
outside the store. A task of one's own, {from: "module:function", ...}, is imported and called only if the caller allows exactly that
name: `zamba-lab ablate run FILE --allow-import module:function`, or read_study(file, allow_import=["module:function"]). A `base` that
is a folder or a hub id has its config read from there.
"""

import importlib
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from zamba_lab.ablate.arms import Arm, StudyError, arms_of, level_name, placed
from zamba_lab.ablate.claims import EACH, RATE, Claim, Gate, is_number, is_whole, label, named
from zamba_lab.ablate.matching import Match, Matched, match, quantity
from zamba_lab.config import ZambaConfig
from zamba_lab.train import TrainConfig
from zamba_lab.yaml_file import line_of, read_yaml

NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")
MAX_SEEDS = 10_000
MAX_EXTEND = 4
UNTIL = ("solved", "steps")
# name -> the least and the largest value it may come near to, but not have
RANGES = {"margin": (0, 1), "alpha": (0, 0.5), "power": (0, 1)}


@dataclass(frozen=True)
class Study:
    """Checked when made: raises ValueError (`StudyError`, which knows the place) for what cannot be run.

    name: letters, digits, - and _; its store is `runs/NAME`. base's vocabulary becomes the task's, train's length, too. Seed s decides
    a cell's initial weights and its data: arms are paired by seed. rates: learning rates tried for every arm on `tuning_seeds`, the
    best of which is used; () uses train.lr for all. extend: how many more rates may be tried on either side, for every arm, while any
    arm's best is at that edge. solved: the accuracy that counts as solving the task, on two fresh samples of `sample` sequences; until:
    whether that ends a cell ("solved"), or all its steps are made ("steps"). metrics: what arms are compared by (`claims.METRICS`).
    margin: the least difference of accuracy or loss that matters; of steps it is the distance of two evaluations. also: tasks on which
    every trained model is measured besides. gates: what must be alive before there is a verdict. weights: keep every cell's weights.
    history: what a reader must know of how the study came to be; its report begins with it.
    """

    name: str
    base: ZambaConfig
    task: Any
    train: TrainConfig
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4, 5)
    axes: Mapping[str, Any] = field(default_factory=dict)
    arms: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    grid: tuple[Mapping[str, Any], ...] = ()
    match: Match | None = None
    rates: tuple[float, ...] = ()
    tuning_seeds: tuple[int, ...] = (1000,)
    solved: float = 0.99
    sample: int = 512
    metrics: tuple[str, ...] = ("accuracy", "loss")
    margin: float = 0.05
    alpha: float = 0.05
    power: float = 0.8
    also: Mapping[str, Any] = field(default_factory=dict)
    claims: tuple[Claim, ...] = ()
    weights: bool = False
    until: str = "solved"
    extend: int = 0
    gates: tuple[Gate, ...] = ()
    history: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("seeds", "grid", "rates", "tuning_seeds", "claims", "metrics", "gates", "history"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "base", placed(("base",), replace, self.base, vocab_size=self.task.vocab_size))
        object.__setattr__(self, "train", placed(("train",), replace, self.train, length=self.task.length))
        self._check_values()
        self._check_tasks()
        self._check_questions()

    def _check_values(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise StudyError(f"a study's name has 1 to 100 letters, digits, - and _, and nothing else: got {self.name!r}", ("name",))
        if not isinstance(self.weights, bool):
            raise StudyError(f"weights must be true or false: got {self.weights!r}", ("weights",))
        if self.until not in UNTIL:
            raise StudyError(f"until must be one of {', '.join(UNTIL)}: got {self.until!r}", ("until",))
        if not is_whole(self.extend) or not 0 <= self.extend <= MAX_EXTEND or self.extend and len(set(self.rates)) < 2:
            raise StudyError(f"extend is 0 to {MAX_EXTEND}, and continues two rates or more: got {self.extend!r}", ("extend",))
        if not all(isinstance(line, str) for line in self.history):
            raise StudyError(f"history is a list of texts: got {self.history!r}", ("history",))
        for name, (low, high) in RANGES.items():
            if not is_number(value := getattr(self, name)) or not low < value < high:
                raise StudyError(f"{name} must be above {low} and below {high}: got {value!r}", (name,))
        for number, metric in enumerate(self.metrics):
            placed(("metrics", number), label, metric)
        if not is_number(self.solved) or not 0 < self.solved <= 1 or not is_whole(self.sample) or self.sample < 1:
            raise StudyError(f"solved is an accuracy in (0, 1], sample 1 or more: got {self.solved!r}, {self.sample!r}", ("solved",))
        for name in ("seeds", "tuning_seeds"):
            values = getattr(self, name)
            if (
                not 0 < len(values) <= MAX_SEEDS
                or not all(is_whole(seed) and seed >= 0 for seed in values)
                or len(set(values)) < len(values)
            ):
                raise StudyError(f"{name} must be 1 to {MAX_SEEDS:,} different integers of 0 or more: got {values!r:.200}", (name,))
        if self.rates and (both := sorted(set(self.seeds) & set(self.tuning_seeds))):
            raise StudyError(f"learning rates are chosen on seeds of their own: in both are {both}", ("tuning_seeds",))
        for number, rate in enumerate(self.rates):
            if not is_number(rate):
                raise StudyError(f"rates must be numbers: got {rate!r}", ("rates", number))
            placed(("rates",), replace, self.train, lr=rate)

    def _check_tasks(self) -> None:
        for name, task in self.also.items():
            if task.vocab_size > self.base.vocab_size:
                raise StudyError(
                    f"a task in also must have the model's tokens: {name!r} has {task.vocab_size}, the model {self.base.vocab_size}",
                    ("also", name),
                )

    def _check_questions(self) -> None:
        if not self.metrics and not self.claims:
            raise StudyError("a study has an outcome: metrics that its arms are compared by, or claims", ("metrics",))
        asked = [(("metrics", k), metric) for k, metric in enumerate(self.metrics)]
        asked += [(("claims", k), claim.metric) for k, claim in enumerate(self.claims)]
        asked += [(("gates", k), gate.metric) for k, gate in enumerate(self.gates)]
        for place, metric in asked:
            if (task := named(metric, "accuracy.")) and task not in self.also:
                raise StudyError(f"no task {task!r} in also, which has {', '.join(self.also) or 'none'}: {metric!r}", place)
        known = {arm.name for arm in self.every_arm}
        named_arms = [(("claims", k), tuple(claim.weights)) for k, claim in enumerate(self.claims)]
        named_arms += [(("gates", k), (gate.arm,)) for k, gate in enumerate(self.gates) if gate.arm != EACH]
        for place, arms in named_arms:
            if missing := [repr(arm) for arm in arms if arm not in known]:
                kind = "a claim" if place[0] == "claims" else "a gate"
                raise StudyError(f"{kind} is about arms of the study: no {', '.join(missing)} among {', '.join(sorted(known))}", place)
        for k, claim in enumerate(self.claims):
            if claim.threshold >= (reach := self.reach(claim.metric)):
                raise StudyError(
                    f"two seeds differ by at most {reach:g} in {claim.metric}: got threshold {claim.threshold:g}",
                    ("claims", k, "threshold"),
                )
        for k, gate in enumerate(self.gates):
            placed(("gates", k), gate.level, self.task, self.margin)
            if gate.metric == RATE and not self.rates:
                raise StudyError(f"{RATE} needs rates that are tried: the study has none", ("gates", k))

    def reach(self, metric: str) -> float:
        """The most that two seeds can differ by: all the steps, the loss of guessing, or an accuracy of 1."""
        if metric == "steps":
            return float(self.train.steps)
        return math.log(self.task.vocab_size) if metric.startswith(("loss", "cost.")) else 1.0

    def contrasts(self, metrics: Iterable[str]) -> tuple[Claim, ...]:
        """That each arm differs from the base, by each of these metrics."""
        return tuple(Claim(arm.name, arm.name, metric, "differs") for metric in metrics for arm in self.every_arm[1:])

    @property
    def questions(self) -> tuple[Claim, ...]:
        """What it gives answers to: its claims; in a study without, its contrasts."""
        return self.claims or self.contrasts(self.metrics)

    @property
    def costs(self) -> tuple[str, ...]:
        """The parts of which every trained model is measured without: those that a metric cost.PART names."""
        metrics = (*self.metrics, *(claim.metric for claim in self.claims), *(gate.metric for gate in self.gates))
        return tuple(sorted({part for metric in metrics if (part := named(metric, "cost."))}))

    @cached_property
    def every_arm(self) -> tuple[Arm, ...]:
        """All arms as asked for, the base first."""
        return arms_of(self.base, self.axes, self.arms, self.grid)

    @cached_property
    def matched(self) -> dict[str, Matched]:
        """Of each arm, what is trained: its widths after the matching, and how far it is from the base."""
        if self.match is not None:
            return {arm.name: match(arm.config, self.base, self.match, self.task.length) for arm in self.every_arm}
        size = {arm.name: quantity(arm.config, "params", self.task.length) for arm in self.every_arm}
        return {arm.name: Matched(arm.config, size[arm.name] / size["base"] - 1, True, {}) for arm in self.every_arm}


def read_study(file: str | Path, allow_import: Collection[str] = ()) -> Study:
    """The study that a YAML or JSON file describes.

    allow_import: the names "module:function" that a task of the file may be imported from; no others are.

    Raises ValueError naming the file, the line and the rule.
    """
    values, lines = read_yaml(file, "a study's file")
    try:
        return from_values(values, allow_import)
    except StudyError as error:
        hint = " (on, yes and true are read as True; off, no and false as False: put a text in quotes)"
        hint = hint if re.search(r"got .*(True|False)", str(error)) else ""
        raise ValueError(f"{file}:{line_of(error.place, lines)}: {error}{hint}") from error


def from_values(values: Any, allow_import: Collection[str] = ()) -> Study:
    """A study of plain values, as they come from a file. Raises StudyError with the place of what does not fit."""
    known = {field.name for field in fields(Study)}
    if not isinstance(values, Mapping):
        raise StudyError(f"a study has the keys {', '.join(sorted(known))}: got {type(values).__name__}", ())
    if unknown := [key for key in values if key not in known]:
        raise StudyError(f"no such key of a study: {unknown[0]!r}; there are {', '.join(sorted(known))}", (unknown[0],))
    if missing := [key for key in ("name", "base", "task", "train") if key not in values]:
        raise StudyError(f"a study says {', '.join(missing)}", ())
    for key, value in values.items():
        if key in KINDS and not isinstance(value, KINDS[key]):
            raise StudyError(f"{key} must be {'a mapping' if KINDS[key] is dict else 'a list'}: got {value!r}", (key,))
    readers = READERS | {
        "task": lambda value: task_of(value, allow_import),
        "also": lambda value: {name: placed((name,), task_of, task, allow_import) for name, task in value.items()},
    }
    return Study(**{key: placed((key,), readers[key], value) if key in readers else value for key, value in values.items()})


def task_of(value: Any, allow_import: Collection[str] = ()) -> Any:
    """A task from {name: ..., size: ..., fields}, or from {from: "module:function", arguments} if `allow_import` has that very name."""
    values = {"name": value} if isinstance(value, str) else dict(value)
    if "from" in values:
        source = values.pop("from")
        if not isinstance(source, str) or isinstance(allow_import, str) or source not in allow_import:
            raise ValueError(
                f"the task is to be imported from {source!r}, which runs code that this file names. If you trust it, allow exactly that: "
                f"--allow-import {source}, or read_study(file, allow_import=[{source!r}])"
            )
        module, _, function = source.partition(":")
        try:
            return getattr(importlib.import_module(module), function)(**values)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"no task there: {error}") from error
    from zamba_lab import tasks

    if "name" not in values:
        raise ValueError(f"a task has a name, one of {', '.join(tasks.names())}: got {value!r}")
    return tasks.get(values.pop("name"), values.pop("size", "ci"), **values)


def _base(value: Any) -> ZambaConfig:
    from zamba_lab.train.command import model_config

    return model_config(value)


def _train(value: Any) -> TrainConfig:
    from zamba_lab.train.config import from_values

    if unknown := [name for name in value if name in ("length", "seed")]:
        raise StudyError(f"{unknown[0]} is not an argument of a study's training: the task has the length, seeds the seeds", (unknown[0],))
    return from_values({"length": 2, "schedule": "constant", **value})


def _match(value: Any) -> Match | None:
    return None if value is None else Match(value) if isinstance(value, str) else Match(**value)


def _seeds(value: Any) -> tuple[int, ...]:
    if not is_whole(value) and not isinstance(value, list):
        raise ValueError(f"seeds are a number of them, or a list: got {value!r}")
    return tuple(range(min(value, MAX_SEEDS + 1))) if is_whole(value) else tuple(value)


def _claims(value: list[Any]) -> tuple[Claim, ...]:
    def claim(values: Mapping[str, Any]) -> Claim:
        read = {key: level_name(value) if key in ("arm", "than") else value for key, value in dict(values).items()}
        if "trend" in read:
            read["trend"] = tuple(level_name(arm) for arm in read["trend"])
        return Claim(**read)

    return tuple(placed((number,), claim, values) for number, values in enumerate(value))


def _gates(value: list[Any]) -> tuple[Gate, ...]:
    return tuple(placed((number,), lambda values: Gate(**dict(values)), values) for number, values in enumerate(value))


READERS: dict[str, Callable[[Any], Any]] = {
    "base": _base,
    "train": _train,
    "match": _match,
    "seeds": _seeds,
    "tuning_seeds": _seeds,
    "claims": _claims,
    "gates": _gates,
}
LISTS = ("grid", "metrics", "rates", "claims", "gates", "history")
KINDS = dict.fromkeys(("axes", "arms", "also", "train"), dict) | dict.fromkeys(LISTS, list)
