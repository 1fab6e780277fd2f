"""The arguments of a training run as one frozen value. The command line's flags and a run's file are made from it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

from zamba_lab.train.schedules import WSD, Exponential, Schedule, read

PRECISIONS = ("auto", "float32", "bf16")


def _option(default: Any, about: str) -> Any:
    return field(default=default, metadata={"about": about})


@dataclass(frozen=True)
class TrainConfig:
    """What is done with the tokens; what the model is stands in its own config.

    `schedule` may be given as a text (`schedules.read`). Raises ValueError naming the rule and the values if the fields do
    not fit together.
    """

    steps: int = _option(1000, "steps of the optimiser")
    batch: int = _option(8, "windows in one step, over all processes")
    length: int = _option(512, "tokens in one window, 2 or more")
    accumulate: int = _option(1, "pieces in which a step's batch is computed: less memory, the same gradient")
    documents: bool = _option(False, "state, convolution and attention begin anew at each document of a window")
    max_epochs: float | None = _option(1.0, "how often a corpus may be seen; None: any number of times")
    lr: float = _option(3e-3, "the peak of the learning rate")
    shared_lr: float = _option(1.0, "share of the rate for the shared blocks and what their invocations own")
    schedule: Schedule = _option(WSD(warmup=100, decay=0.3), "e.g. 'wsd(warmup=100, decay=0.3)', 'exponential(factor=0.01)'")
    weight_decay: float = _option(0.1, "on matrices; never on norms, biases, embeddings or the SSM's A, D and dt")
    beta1: float = _option(0.9, "of AdamW")
    beta2: float = _option(0.95, "of AdamW")
    clip: float = _option(1.0, "largest norm of the gradient")
    seed: int = _option(0, "of the order of the windows")
    precision: str = _option("auto", "float32, bf16 (autocast; the weights stay float32), or auto: bf16 on a GPU that has it")
    checkpointing: bool = _option(False, "keep each layer's input only and compute the layer again for its gradient")
    evaluate_every: int = _option(250, "steps between evaluations")
    checkpoint_every: int = _option(250, "steps between checkpoints")
    keep: int = _option(2, "newest checkpoints that stay, 2 or more: if the last is spoilt there is one before")
    sample_every: int = _option(0, "steps between texts written by the model; 0: none")

    def __post_init__(self) -> None:
        if isinstance(self.schedule, str):
            object.__setattr__(self, "schedule", read(self.schedule))
        least = {
            "steps": 1,
            "batch": 1,
            "length": 2,
            "accumulate": 1,
            "evaluate_every": 1,
            "checkpoint_every": 1,
            "keep": 2,
            "sample_every": 0,
        }
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"{name} must be {bound} or more: got {getattr(self, name)}")
        for name in ("lr", "shared_lr", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0: got {getattr(self, name)}")
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1): got {getattr(self, name)}")
        if self.accumulate > self.batch:
            raise ValueError(f"accumulate must be at most batch, a window a piece: got accumulate={self.accumulate}, batch={self.batch}")
        if self.max_epochs is not None and not self.max_epochs > 0:
            raise ValueError(f"max_epochs must be above 0, or None for any number: got {self.max_epochs}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}: got {self.precision!r}")
        self.schedule.check(self.steps)

    def lr_at(self, step: int) -> float:
        """The learning rate of a step in 0..steps - 1."""
        return self.lr * self.schedule.share(step, self.steps)

    def facts(self) -> dict[str, object]:
        """Each field as a number, a text or None."""
        return {one.name: str(self.schedule) if one.name == "schedule" else getattr(self, one.name) for one in fields(self)}


def annealing(trunk: TrainConfig, steps: int, **changes: Any) -> TrainConfig:
    """The arguments of a second phase that branches from a trunk: `steps` of its own, a new warm-up to the trunk's peak over
    1 % of them, then down to a hundredth; another order of windows. changes: any field."""
    schedule = Exponential(warmup=max(1, steps // 100))
    return replace(trunk, **{"steps": steps, "schedule": schedule, "seed": trunk.seed + 1} | changes)


def from_values(values: dict[str, Any]) -> TrainConfig:
    """A config of field values as they come from a file or a command line: numbers may be texts.

    Raises ValueError naming the fields there are, or the field whose value is of the wrong kind.
    """
    known = {one.name: one for one in fields(TrainConfig)}
    if unknown := sorted(values.keys() - known.keys()):
        raise ValueError(f"no such training argument: {', '.join(unknown)}; there are {', '.join(known)}")
    return TrainConfig(**{name: _converted(known[name], value) for name, value in values.items()})


def _converted(one, value: Any) -> Any:
    kind = one.type.removesuffix(" | None")
    if kind == "Schedule" or (value in (None, "none", "None") and one.type != kind):
        return None if one.type != kind else value
    try:
        if kind == "bool":
            return {"true": True, "false": False}[str(value).lower()]
        if kind == "int" and float(value) != int(float(value)):
            raise ValueError
        return {"int": lambda text: int(float(text)), "float": float, "str": str}[kind](value)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{one.name} must be of type {one.type}: got {value!r}") from error


def defaults() -> dict[str, tuple[Any, str]]:
    """Of each field: its default, and what it is about."""
    return {one.name: (one.default, one.metadata["about"]) for one in fields(TrainConfig)}
