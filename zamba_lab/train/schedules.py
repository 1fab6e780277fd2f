"""The learning rate over a run, as values: each gives a step's share of the peak, and knows nothing else.

    schedule = WSD(warmup=100, decay=0.3)
    schedule.share(250, steps=1000)        # 1.0
    str(schedule)                          # "wsd(warmup=100, decay=0.3, final=0.0)", which `read_schedule` reads

`t` below runs from 0 at the end of the warm-up to 1 at the end of the run. The two phases of the published recipe are two
runs: a trunk with Cosine or WSD, and an annealing run that branches from it with Exponential (`loop.train`, `branch_from`).
"""

import ast
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Schedule(ABC):
    """What all schedules begin with: a straight rise to the peak. `after` is what follows.

    Raises ValueError if a field breaks a rule.
    """

    warmup: int = 0  # steps of the rise; step k of them has the share (k + 1) / warmup

    def __post_init__(self) -> None:
        if not isinstance(self.warmup, int) or isinstance(self.warmup, bool) or self.warmup < 0:
            raise ValueError(f"warmup must be a number of steps, 0 or more: got {self.warmup!r}")
        for name in ("final", "decay", "factor"):
            value = getattr(self, name, 0)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
                raise ValueError(f"{name} is a share, in [0, 1]: got {value!r}")

    def share(self, step: int, steps: int) -> float:
        """The share of the peak in step 0..steps - 1 of a run of `steps`."""
        return (step + 1) / self.warmup if step < self.warmup else self.after(step, steps)

    @abstractmethod
    def after(self, step: int, steps: int) -> float:
        """The share of the peak in a step after the warm-up."""

    def room(self, steps: int) -> float:
        """The most steps that the warm-up may take in a run of `steps`."""
        return steps

    def check(self, steps: int) -> None:
        """Raise ValueError if the warm-up does not fit into a run of `steps`."""
        if self.warmup > self.room(steps):
            raise ValueError(
                f"the warm-up must end before the decay begins and the run ends: got {self} in {steps} steps, room for {self.room(steps):g}"
            )

    def __str__(self) -> str:
        name = next(name for name, kind in SCHEDULES.items() if kind is type(self))
        return f"{name}({', '.join(f'{field.name}={getattr(self, field.name)}' for field in fields(self))})"

    def _t(self, step: int, steps: int) -> float:
        return (step - self.warmup) / max(1, steps - self.warmup)


@dataclass(frozen=True)
class Constant(Schedule):
    """1."""

    def after(self, step: int, steps: int) -> float:
        return 1.0


@dataclass(frozen=True)
class Linear(Schedule):
    """A straight line from 1 to `final`."""

    final: float = 0.0

    def after(self, step: int, steps: int) -> float:
        return 1 - (1 - self.final) * self._t(step, steps)


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from 1 to `final`: Zamba's first phase, with final = 1/2."""

    final: float = 0.0

    def after(self, step: int, steps: int) -> float:
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * self._t(step, steps)))


@dataclass(frozen=True)
class WSD(Schedule):
    """Warm-up, stable, decay: 1, then a straight line to `final`. While it is 1, the end of the run may still be moved."""

    decay: float = 0.3  # share of all steps in which it falls, at the end
    final: float = 0.0

    def after(self, step: int, steps: int) -> float:
        fall = self.decay * steps
        return self.final + (1 - self.final) * (min(1.0, (steps - step) / fall) if fall else 1.0)

    def room(self, steps: int) -> float:
        return (1 - self.decay) * steps


@dataclass(frozen=True)
class Exponential(Schedule):
    """factor^t: the annealing phase, as the authors had it from a re-warmed peak to a hundredth."""

    factor: float = 0.01

    def after(self, step: int, steps: int) -> float:
        return self.factor ** self._t(step, steps)


SCHEDULES = {"constant": Constant, "linear": Linear, "cosine": Cosine, "wsd": WSD, "exponential": Exponential}


def read_schedule(text: str) -> Schedule:
    """The schedule of a text such as "cosine" or "wsd(warmup=60, decay=0.3)"; what is left out has its default.

    Raises ValueError if the text is no such thing.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        name, keywords, positional = (tree.func.id, tree.keywords, tree.args) if isinstance(tree, ast.Call) else (tree.id, [], [])
        values = {keyword.arg: ast.literal_eval(keyword.value) for keyword in keywords}
    except (SyntaxError, AttributeError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"a schedule is written like 'wsd(warmup=60, decay=0.3)': got {text!r:.200}") from error
    if name not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}: got {name!r}")
    known = {field.name for field in fields(SCHEDULES[name])}
    if positional or not values.keys() <= known:
        raise ValueError(f"{name} takes {', '.join(f'{field}=' for field in sorted(known))} and nothing else: got {text!r}")
    return SCHEDULES[name](**values)
