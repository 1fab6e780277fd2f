"""What is measured of an arm, and a claim, written down before the cells are run: which arm, against which, from when on."""

from __future__ import annotations

from dataclasses import dataclass

METRICS = {
    "accuracy": "accuracy",
    "loss": "held-out loss, nats",
    "solve_rate": "share of seeds that solve it",
    "steps": "steps until solved, or all that there are",
}
SLICE = "loss."  # and the loss of any slice of the task, as loss.NAME
DIRECTIONS = ("more", "less", "equal")


def label(metric: str) -> str:
    """A metric in words. Raises ValueError if there is none of that name."""
    if metric.startswith(SLICE) and metric != SLICE:
        return f'held-out loss of "{metric.removeprefix(SLICE)}", nats'
    if metric not in METRICS:
        raise ValueError(f"a metric is one of {', '.join(METRICS)}, or {SLICE}NAME of a slice of the task: got {metric!r}")
    return METRICS[metric]


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
        label(self.metric)
        if self.direction not in DIRECTIONS:
            raise ValueError(f"direction of a claim must be one of {', '.join(DIRECTIONS)}: got {self.direction!r}")
        if self.threshold < 0 or (self.direction == "equal" and self.threshold == 0):
            raise ValueError(f"threshold must be 0 or more, and above 0 for equal: got {self.threshold}")
