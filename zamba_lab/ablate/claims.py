"""A claim, written down before the cells are run: which arm, against which, by which measure, and from when on it holds."""
from __future__ import annotations

from dataclasses import dataclass

METRICS = ("accuracy", "loss", "solve_rate")
DIRECTIONS = ("more", "less", "equal")


@dataclass(frozen=True)
class Claim:
    """`arm` has more (less, equally much) of `metric` than `than`, by at least `threshold`; equal: to within `threshold`.

    Raises ValueError if it knows no such metric or direction.
    """

    text: str
    arm: str
    metric: str = "accuracy"
    direction: str = "more"
    threshold: float = 0.0
    than: str = "base"

    def __post_init__(self) -> None:
        for name, choices in (("metric", METRICS), ("direction", DIRECTIONS)):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} of a claim must be one of {', '.join(choices)}: got {getattr(self, name)!r}")
        if self.threshold < 0 or (self.direction == "equal" and self.threshold == 0):
            raise ValueError(f"threshold must be 0 or more, and above 0 for equal: got {self.threshold}")
