"""The arguments of a training run as one frozen value. The command line's flags and a run's file are made from it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any

import torch

from zamba_lab.train.schedules import WSD, Exponential, Schedule, read_schedule

PRECISIONS = ("auto", "float32", "bf16")


def _option(default: Any, about: str, least: int | None = None) -> Any:
    return field(default=default, metadata={"about": about, "least": least})


@dataclass(frozen=True)
class TrainConfig:
    """How to train; what the model is stands in its own config.

    `schedule` may be given as a text (`read_schedule`). Raises ValueError naming the rule and the values if the fields do
    not fit together.
    """

    steps: int = _option(1000, "steps of the optimiser", 1)
    batch: int = _option(8, "windows in one step, over all processes", 1)
    length: int = _option(512, "tokens in one window, 2 or more", 2)
    accumulate: int = _option(1, "micro-batches of a step: less memory, the same gradient", 1)
    documents: bool = _option(False, "state, convolution and attention begin anew at each document of a window")
    max_epochs: float | None = _option(1.0, "how often a corpus may be seen; None: any number of times")
    lr: float = _option(3e-3, "the peak of the learning rate")
    shared_lr: float = _option(1.0, "share of the rate for the shared blocks and what their invocations own")
    rates: str = _option("", "share of the rate / weight decay by kind: 'qk=0.5/0 link=0.15/1'; also vo, mlp_in, mlp_out, lora")
    schedule: Schedule = _option(WSD(warmup=100, decay=0.3), "e.g. 'wsd(warmup=100, decay=0.3)', 'exponential(factor=0.01)'")
    weight_decay: float = _option(0.1, "on matrices; never on norms, biases, embeddings or the SSM's A, D and dt")
    beta1: float = _option(0.9, "of AdamW")
    beta2: float = _option(0.95, "of AdamW")
    clip: float = _option(1.0, "largest norm of the gradient")
    seed: int = _option(0, "of the order of the windows", 0)
    precision: str = _option("auto", "float32, bf16 (autocast; the weights stay float32), or auto: bf16 on a GPU that has it")
    checkpointing: bool = _option(False, "keep each layer's input only and compute the layer again for its gradient")
    evaluate_every: int = _option(250, "steps between evaluations", 1)
    checkpoint_every: int = _option(250, "steps between checkpoints", 1)
    keep: int = _option(2, "newest checkpoints that stay, 2 or more: if the last is corrupt there is one before", 2)
    sample_every: int = _option(0, "steps between texts written by the model; 0: none", 0)

    def __post_init__(self) -> None:
        if isinstance(self.schedule, str):
            object.__setattr__(self, "schedule", read_schedule(self.schedule))
        for option in fields(self):
            object.__setattr__(self, option.name, _checked(option.name, option.type, getattr(self, option.name)))
            least = option.metadata["least"]
            if least is not None and getattr(self, option.name) < least:
                raise ValueError(f"{option.name} must be {least} or more: got {getattr(self, option.name)}")
        for name in ("lr", "shared_lr", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0: got {getattr(self, name)}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1): got {getattr(self, name)}")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay must be 0 or more: got {self.weight_decay}")
        if self.accumulate > self.batch:
            raise ValueError(
                f"accumulate must be at most batch, a window a micro-batch: got accumulate={self.accumulate}, batch={self.batch}"
            )
        if self.max_epochs is not None and not self.max_epochs > 0:
            raise ValueError(f"max_epochs must be above 0, or None for any number: got {self.max_epochs}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}: got {self.precision!r}")
        self.schedule.check(self.steps)
        read_rates(self.rates)

    def lr_at(self, step: int) -> float:
        """The learning rate of a step in 0..steps - 1."""
        return self.lr * self.schedule.share(step, self.steps)

    def facts(self) -> dict[str, object]:
        """Each field as a number, a text or None. Empty `rates` are left out: what was made before there were any keeps its address."""
        every = {option.name: str(self.schedule) if option.name == "schedule" else getattr(self, option.name) for option in fields(self)}
        return {name: value for name, value in every.items() if name != "rates" or value}


# Kinds of matrices that `rates` may name, by what stands in their parameters' names. Of two that fit, the first counts.
KINDS = {
    "lora": (".adapters.",),
    "qk": (".attention.q.", ".attention.k."),
    "vo": (".attention.v.", ".attention.o."),
    "mlp_in": (".mlp.gate_up.",),
    "mlp_out": (".mlp.down.",),
    "link": (".invocation.link.",),
}


def kind_of(name: str) -> str | None:
    """Which of KINDS a parameter is, by its name; None: none of them."""
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), None)


def read_rates(text: str) -> dict[str, tuple[float, float]]:
    """Kind of matrix -> share of the learning rate, above 0, and weight decay, 0 or more. Raises ValueError on any other text."""
    rates = {}
    for entry in text.split():
        kind, _, values = entry.partition("=")
        try:
            share, decay = map(float, values.split("/"))
        except ValueError:
            share, decay = math.nan, math.nan
        if kind not in KINDS or kind in rates or not (0 < share < math.inf and 0 <= decay < math.inf):
            raise ValueError(f"rates are KIND=SHARE/DECAY, each kind once, of {', '.join(KINDS)}: got {entry!r}")
        rates[kind] = share, decay
    return rates


def _checked(name: str, kind: str, value: Any) -> Any:
    """A value of a field's type, numpy's numbers as Python's. Raises ValueError for any other; a bool is no number."""
    if value is None and kind.endswith("| None"):
        return None
    kind = kind.removesuffix(" | None")
    types = {"int": Integral, "float": Real, "bool": bool, "str": str, "Schedule": Schedule}[kind]
    if not isinstance(value, types) or (isinstance(value, bool) and kind != "bool"):
        raise ValueError(f"{name} must be of type {kind}: got {value!r}")
    if kind == "float" and math.isinf(value):
        raise ValueError(f"{name} must be finite: got {value}")
    return value.item() if hasattr(value, "item") else value


def resolve_precision(precision: str, device: torch.device) -> str:
    """ "auto" as what it means on a device: bf16 on a GPU that has it, else float32. "bf16" and "float32" stay."""
    if precision != "auto":
        return precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "float32"


def annealing(trunk: TrainConfig, steps: int, **changes: Any) -> TrainConfig:
    """The arguments of a second phase that branches from a trunk: `steps` of its own, a new warm-up to the trunk's peak over
    1 % of them, then down to a hundredth; another order of windows. changes: any field."""
    schedule = Exponential(warmup=max(1, steps // 100))
    return replace(trunk, **{"steps": steps, "schedule": schedule, "seed": trunk.seed + 1} | changes)


def from_values(values: dict[str, Any]) -> TrainConfig:
    """A config of field values as they come from a file or a command line: numbers may be texts.

    Raises ValueError naming the fields there are, or the field whose value is of the wrong kind.
    """
    options = {option.name: option.type for option in fields(TrainConfig)}
    if unknown := sorted(map(str, values.keys() - options.keys())):
        raise ValueError(f"no such training argument: {', '.join(unknown)}; there are {', '.join(options)}")
    return TrainConfig(**{name: _converted(name, options[name], value) for name, value in values.items()})


def _converted(name: str, kind: str, value: Any) -> Any:
    if kind == "Schedule":
        return value
    if kind.endswith("| None") and value in (None, "none", "None"):
        return None
    plain = kind.removesuffix(" | None")
    try:
        if plain == "bool":
            return {"true": True, "false": False}[str(value).lower()]
        if plain == "int" and float(value) != int(float(value)):
            raise ValueError
        return {"int": lambda text: int(float(text)), "float": float, "str": str}[plain](value)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be of type {kind}: got {value!r}") from error


def defaults() -> dict[str, tuple[Any, str]]:
    """Of each field: its default, and what it is about."""
    return {option.name: (option.default, option.metadata["about"]) for option in fields(TrainConfig)}
