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

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from zamba_lab.ablate.arms import Arm, Impossible, arms_of
from zamba_lab.ablate.claims import Claim, label
from zamba_lab.ablate.matching import Match, Matched, match, quantity
from zamba_lab.config import ZambaConfig
from zamba_lab.config.yaml_file import line_of, read_yaml
from zamba_lab.train import TrainConfig


NAME = re.compile(r"[A-Za-z0-9_-]{1,100}")


@dataclass(frozen=True)
class Study:
    """Checked when made: raises ValueError (`Impossible`, which knows the place) for what cannot be run.

    name: letters, digits, - and _, for a store is `runs/NAME`. base's vocabulary becomes the task's; train's length, too. Seed s decides a cell's initial weights and its data: arms
    are paired by seed. rates: learning rates tried for every arm on `tuning_seeds`, the best of which is used; () takes
    train.lr for all. solved: the accuracy that ends a cell, on two fresh samples of `sample` sequences. metrics: what arms
    are compared by (`claims.METRICS`). margin: the least difference of accuracy or loss that matters; of steps it is the
    distance of two evaluations. also: tasks on which every trained model is looked at besides.
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
    weights: bool = False  # keep every cell's trained weights

    def __post_init__(self) -> None:
        for name in ("seeds", "grid", "rates", "tuning_seeds", "claims", "metrics"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "base", _placed(("base",), replace, self.base, vocab_size=self.task.vocab_size))
        object.__setattr__(self, "train", _placed(("train",), replace, self.train, length=self.task.length))
        self._check()
        known = {arm.name for arm in self.every_arm}
        for number, claim in enumerate(self.claims):
            if missing := sorted({claim.arm, claim.than} - known):
                raise Impossible(
                    f"a claim is about arms of the study: no {', '.join(map(repr, missing))} among {', '.join(sorted(known))}",
                    ("claims", number),
                )

    def _check(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise Impossible(f"a study's name has 1 to 100 letters, digits, - and _, and nothing else: got {self.name!r}", ("name",))
        for name, bound in (("margin", 1), ("alpha", 0.5), ("power", 1)):
            if not 0 < getattr(self, name) < bound:
                raise Impossible(f"{name} must be above 0 and below {bound}: got {getattr(self, name)}", (name,))
        for number, metric in enumerate(self.metrics):
            _placed(("metrics", number), label, metric)
        if not 0 < self.solved <= 1 or self.sample < 1:
            raise Impossible(f"solved is an accuracy in (0, 1], sample 1 or more: got {self.solved}, {self.sample}", ("solved",))
        for name in ("seeds", "tuning_seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values) or any(not isinstance(one, int) or one < 0 for one in values):
                raise Impossible(f"{name} must be different integers of 0 or more, at least one: got {values}", (name,))
        if self.rates and set(self.seeds) & set(self.tuning_seeds):
            raise Impossible(
                f"learning rates are chosen on seeds of their own: in both are {sorted(set(self.seeds) & set(self.tuning_seeds))}",
                ("tuning_seeds",),
            )
        for rate in self.rates:
            _placed(("rates",), replace, self.train, lr=rate)
        for name, task in self.also.items():
            if task.vocab_size > self.base.vocab_size:
                raise Impossible(
                    f"a task in also must have the model's tokens: {name!r} has {task.vocab_size}, the model {self.base.vocab_size}",
                    ("also", name),
                )

    @cached_property
    def every_arm(self) -> tuple[Arm, ...]:
        """All arms as asked for, the base first."""
        return arms_of(self.base, self.axes, self.arms, self.grid)

    @cached_property
    def matched(self) -> dict[str, Matched]:
        """Of each arm, what is trained: its widths after the matching, and how far it is from the base."""
        if self.match is None:
            return {arm.name: Matched(arm.config, _off(arm.config, self.base, self.task.length), True, {}) for arm in self.every_arm}
        return {arm.name: match(arm.config, self.base, self.match, self.task.length) for arm in self.every_arm}


def _off(config: ZambaConfig, base: ZambaConfig, context: int) -> float:
    return quantity(config, "params", context) / quantity(base, "params", context) - 1


def read_study(file: str | Path, allow_import: Collection[str] = ()) -> Study:
    """The study that a YAML or JSON file describes.

    allow_import: the names "module:function" that a task of the file may be imported from; no others are.

    Raises ValueError naming the file, the line and the rule.
    """
    file = Path(file)
    values, lines = read_yaml(file, "a study's file")
    try:
        return from_values(values, allow_import)
    except Impossible as error:
        raise ValueError(f"{file}:{line_of(error.place, lines)}: {error}") from error


def from_values(values: Any, allow_import: Collection[str] = ()) -> Study:
    """A study of plain values, as they come from a file. Raises Impossible with the place of what does not fit."""
    known = {one.name for one in fields(Study)}
    if not isinstance(values, Mapping):
        raise Impossible(f"a study has the keys {', '.join(sorted(known))}: got {type(values).__name__}", ())
    if unknown := [key for key in values if key not in known]:
        raise Impossible(f"no such key of a study: {unknown[0]!r}; there are {', '.join(sorted(known))}", (unknown[0],))
    if missing := [key for key in ("name", "base", "task", "train") if key not in values]:
        raise Impossible(f"a study says {', '.join(missing)}", ())
    readers = READERS | {
        "task": lambda value: task_of(value, allow_import),
        "also": lambda value: {name: _placed((name,), task_of, task, allow_import) for name, task in value.items()},
    }
    made = {key: _placed((key,), readers[key], value) if key in readers else value for key, value in values.items()}
    for key, kind in KINDS.items():
        if key in made and not isinstance(made[key], kind):
            raise Impossible(f"{key} must be {'a mapping' if kind is dict else 'a list'}: got {made[key]!r}", (key,))
    return Study(**made)


def _placed(place: tuple, make: Callable, *arguments: Any, **more: Any) -> Any:
    """make(...), whose ValueError becomes Impossible with a place."""
    try:
        return make(*arguments, **more)
    except Impossible as error:
        raise Impossible(str(error), place + error.place) from error
    except (ValueError, TypeError) as error:
        raise Impossible(str(error), place) from error


def _base(value: Any) -> ZambaConfig:
    from zamba_lab.train.command import model_config

    return model_config(value)


def _train(value: Any) -> TrainConfig:
    from zamba_lab.train.config import from_values

    if unknown := [name for name in value if name in ("length", "seed")]:
        raise Impossible(f"{unknown[0]} is not an argument of a study's training: the task has the length, seeds the seeds", (unknown[0],))
    return from_values({"length": 2, "schedule": "constant", **value})


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


def _list(make: Callable) -> Callable[[Any], tuple]:
    def read(value: Any) -> tuple:
        return tuple(_placed((number,), make, one) for number, one in enumerate(value))

    return read


def _match(value: Any) -> Match | None:
    return None if value is None else Match(value) if isinstance(value, str) else Match(**value)


def _seeds(value: Any) -> tuple[int, ...]:
    return tuple(range(value)) if isinstance(value, int) and not isinstance(value, bool) else tuple(value)


READERS: dict[str, Callable[[Any], Any]] = {
    "base": _base,
    "train": _train,
    "match": _match,
    "seeds": _seeds,
    "tuning_seeds": _seeds,
    "rates": _list(float),
    "claims": _list(lambda value: Claim(**value)),
}
KINDS = {"axes": dict, "arms": dict, "grid": list, "metrics": list}
