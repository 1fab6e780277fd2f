"""The arguments of a training run as one frozen value, and the learning rate that they give at each step."""
from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class TrainConfig:
    """What is done with the tokens; what the model is stands in its own config.

    Raises ValueError naming the rule and the values if the fields do not fit together.
    """

    steps: int = 1000
    batch: int = 8                    # windows in one step
    length: int = 512                 # tokens in one window
    lr: float = 3e-3                  # the peak
    shared_lr: float = 1.0            # share of the rate for the shared blocks and what their invocations own
    schedule: str = "wsd"             # or "cosine": what follows the warm-up
    warmup: int = 100                 # steps in which the rate rises from 0
    decay: float = 0.3                # "wsd" only: share of the steps in which it falls to `final_lr`, at the end
    final_lr: float = 0.0             # share of the peak at the end
    weight_decay: float = 0.1         # on matrices; never on norms, biases, embeddings or the SSM's A, D and dt
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0                 # largest norm of the gradient
    seed: int = 0                     # of the order of the windows
    evaluate_every: int = 250
    checkpoint_every: int = 250

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "length", "evaluate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more: got {getattr(self, name)}")
        for name in ("lr", "shared_lr", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0: got {getattr(self, name)}")
        for name in ("decay", "final_lr", "beta1", "beta2"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a share, in [0, 1]: got {getattr(self, name)}")
        if not 0 <= self.warmup <= (1 - self.decay) * self.steps:
            raise ValueError(f"warmup must be 0 or more and end before the decay begins: got warmup={self.warmup}, "
                             f"steps={self.steps}, decay={self.decay}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule must be one of {sorted(SCHEDULES)}: got {self.schedule!r}")

    def lr_at(self, step: int) -> float:
        """The learning rate of a step in 0..steps - 1: a linear rise, then the schedule's share of the peak."""
        if step < self.warmup:
            return self.lr * (step + 1) / self.warmup
        return self.lr * (self.final_lr + (1 - self.final_lr) * SCHEDULES[self.schedule](step, self))


def _cosine(step: int, config: TrainConfig) -> float:
    """Half a cosine from 1 to 0 over the steps after the warm-up."""
    return 0.5 * (1 + math.cos(math.pi * (step - config.warmup) / max(1, config.steps - config.warmup)))


def _wsd(step: int, config: TrainConfig) -> float:
    """Warm-up, stable, decay: 1, then a straight line to 0. As long as it is 1, the end of the run may still be moved."""
    fall = config.decay * config.steps
    return min(1.0, (config.steps - step) / fall) if fall else 1.0


SCHEDULES = {"cosine": _cosine, "wsd": _wsd}
