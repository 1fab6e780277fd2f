"""What a study asks: metrics, claims with their thresholds, and gates that must hold for the question to mean anything."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zamba_lab.ablate.arms import BASE
from zamba_lab.lens.parts import PARTS

METRICS = {
    "accuracy": "accuracy",
    "loss": "held-out loss, nats",
    "solve_rate": "share of seeds that solve it",
    "steps": "steps until solved, or all that there are",
}
FAMILIES = {  # prefix of a metric -> what it is, of the name that follows
    "loss.": 'held-out loss of "{}", nats',  # of a slice of the task
    "accuracy.": 'accuracy on "{}"',  # of the tasks in `also`
    "cost.": "held-out loss, nats, that replacing every {} by its mean adds",  # of a part in zamba_lab.lens.parts
}
RATE = "rate_inside"  # a gate's only: 1 where an arm's learning rate lies inside those that were tried, 0 at an edge
DIRECTIONS = ("more", "less", "equal", "differs")
EACH = "each"  # of a gate: every arm by itself
LEVELS = ("plateau", "chance", "margin")  # what a gate may name in place of a number: the task's, the study's


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    return isinstance(value, float) and not math.isnan(value) or is_whole(value)


def named(metric: str, family: str) -> str:
    """NAME of a metric family + NAME; "" if it is of another kind."""
    return metric.removeprefix(family) if metric.startswith(family) else ""


def label(metric: str) -> str:
    """A metric in words. Raises ValueError if there is none of that name."""
    for family, words in FAMILIES.items():
        if isinstance(metric, str) and (name := named(metric, family)):
            if family == "cost." and name not in PARTS:
                raise ValueError(f"cost.PART is of a part: {', '.join(PARTS)}; got {metric!r}")
            return words.format(name)
    if not isinstance(metric, str) or metric not in METRICS:
        raise ValueError(
            f"a metric is one of {', '.join(METRICS)}, loss.NAME of a slice of the task, accuracy.NAME of a task in also, or "
            f"cost.PART: got {metric!r}"
        )
    return METRICS[metric]


@dataclass(frozen=True)
class Claim:
    """Written down before the cells are run: `arm` has more (less) of `metric` than `than`, by more than `threshold`.

    direction: "more", "less"; "equal", the mean difference is within +-threshold; "differs", by more than threshold either way.
    trend: in place of arm and than, arms in their order; the difference is then the rise from the first to the last of the
    straight line through them. expected, scatter: what the number of seeds was chosen for: the difference, and the standard deviation
    of it over seeds. symmetric: of "equal" only, whether differences may be taken to scatter symmetrically about their mean.
    family: claims of one family are corrected together; all are of one unless the file says otherwise.

    Raises ValueError if it knows no such metric or direction, or numbers do not fit.
    """

    text: str
    arm: str = ""
    metric: str = "accuracy"
    direction: str = "more"
    threshold: float = 0.0
    than: str = BASE
    trend: tuple[str, ...] = ()
    expected: float | None = None
    scatter: float | None = None
    symmetric: bool = False
    family: str = "study"

    def __post_init__(self) -> None:
        label(self.metric)
        if self.direction not in DIRECTIONS:
            raise ValueError(f"direction of a claim must be one of {', '.join(DIRECTIONS)}: got {self.direction!r}")
        if not is_number(self.threshold) or not self.threshold >= (1e-12 if self.direction == "equal" else 0):
            raise ValueError(f"threshold must be 0 or more, and above 0 for equal: got {self.threshold!r}")
        object.__setattr__(self, "trend", tuple(self.trend))
        if bool(self.arm) == bool(self.trend) or len(self.trend) in (1, 2) or len(set(self.trend)) < len(self.trend):
            raise ValueError(f"a claim is about an arm, or has a trend of three or more arms: got arm {self.arm!r}, trend {self.trend}")
        if self.expected is not None and not is_number(self.expected):
            raise ValueError(f"expected is a difference: got {self.expected!r}")
        if self.scatter is not None and (not is_number(self.scatter) or not self.scatter > 0):
            raise ValueError(f"scatter is a standard deviation, above 0: got {self.scatter!r}")
        for name, kind in (("symmetric", bool), ("family", str), ("text", str)):
            if not isinstance(getattr(self, name), kind):
                raise ValueError(f"{name} of a claim must be {'true or false' if kind is bool else 'a text'}: got {getattr(self, name)!r}")

    @property
    def weights(self) -> dict[str, float]:
        """Of each arm in it: a seed's difference is the sum of the arms' values times these."""
        if not self.trend:
            return {self.arm: 1.0, self.than: -1.0} if self.arm != self.than else {self.arm: 0.0}
        n = len(self.trend)
        places = [k - (n - 1) / 2 for k in range(n)]
        square = sum(place * place for place in places)
        return {arm: place * (n - 1) / square for arm, place in zip(self.trend, places)}

    @property
    def sign(self) -> int:
        """-1 where less is claimed, else 1."""
        return -1 if self.direction == "less" else 1

    @property
    def measure(self) -> str:
        """What is compared, in words."""
        by = f" by {self.threshold:g}" if self.threshold else ""
        arms = " to ".join((self.trend[0], self.trend[-1])) if self.trend else f"{self.arm} against {self.than}"
        return f"{arms}: {self.direction} {self.metric}{by}"


@dataclass(frozen=True)
class Gate:
    """What must be alive for the question to mean anything: `metric` is above (below) a level in so large a `share` of the seeds of `arm`.

    above, below: a number, or "plateau" or "chance" of the task, "margin" of the study. arm: "base" decides about every claim, another
    arm about those that it is in; "each": every arm by itself. metric rate_inside: the arm's learning rate is not at an edge of those
    that were tried. Raises ValueError if it knows no such metric or level.
    """

    text: str
    metric: str
    above: float | str | None = None
    below: float | str | None = None
    arm: str = BASE
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.metric != RATE:
            label(self.metric)
            if (self.above is None) == (self.below is None):
                raise ValueError(f"a gate has one of above and below: got {self.above!r} and {self.below!r}")
        elif self.above is not None or self.below is not None:
            raise ValueError(f"{RATE} has no level: got above {self.above!r}, below {self.below!r}")
        for level in (self.above, self.below):
            if level is not None and level not in LEVELS and not is_number(level):
                raise ValueError(f"a level is a number or one of {', '.join(LEVELS)}: got {level!r}")
        if not is_number(self.share) or not 0 < self.share <= 1:
            raise ValueError(f"share is of the seeds, above 0 and at most 1: got {self.share!r}")
        if not isinstance(self.text, str):
            raise ValueError(f"text of a gate must be a text: got {self.text!r}")

    def level(self, task: Any, margin: float) -> float:
        """The level as a number. Raises ValueError if the task has none of that name."""
        level = self.above if self.below is None else self.below
        if isinstance(level, str):
            known: Mapping[str, float | None] = {"plateau": task.plateau, "chance": task.chance, "margin": margin}
            if known[level] is None:
                raise ValueError(f"the task has no {level}: give a number")
            level = known[level]
        return math.nan if level is None else float(level)

    def holds(self, value: float, level: float) -> bool:
        """Of one seed's value."""
        if self.metric == RATE:
            return value > 0
        return value > level if self.below is None else value < level

    @property
    def measure(self) -> str:
        """What is asked for, in words."""
        which = "above" if self.below is None else "below"
        level = "" if self.metric == RATE else f" {which} {self.above if self.below is None else self.below}"
        seeds = "" if self.metric == RATE else " in every seed" if self.share == 1 else f" in {self.share:.0%} of the seeds"
        return f"{self.arm}: {self.metric}{level}{seeds}"
