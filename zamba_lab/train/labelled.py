"""Training data that is made as it is asked for and brings its own labels: a synthetic task, not a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from zamba_lab.train.config import TrainConfig


@dataclass(frozen=True)
class Labelled:
    """What takes a mixture's place in `loop.train`.

    make: (seed, step, n) -> ids (n, l) and labels (n, l), int64, -100 where nothing is asked; a function of its arguments
    alone. labels[:, t] is what is to be predicted at position t. identity: name -> value, the same for the same data only.
    """

    make: Callable[[int, int, int], tuple[Tensor, Tensor]]
    length: int
    identity: Mapping[str, object]
    corpora: Mapping[str, np.ndarray] = field(default_factory=dict)  # none: there is no array to look through

    def batch(self, step: int, config: TrainConfig, rank: int = 0, size: int = 1) -> tuple[Tensor, Tensor]:
        """ids and labels of one step, (b, l) each; of `size` processes each takes every size-th row."""
        ids, labels = self.make(config.seed, step, config.batch)
        return ids[rank::size], labels[rank::size]

    def check(self, config: TrainConfig) -> None:
        """Raise ValueError if a run with these arguments breaks a rule."""
        if config.length != self.length or config.documents:
            raise ValueError(
                f"labelled data has its own length and no documents: got length={config.length}, the data's is "
                f"{self.length}, documents={config.documents}"
            )

    def place(self, row: int, step: int, config: TrainConfig, bos_id: int | None, rank: int = 0, size: int = 1) -> str:
        """Where a row of a step's batch is from."""
        return f"sequence {range(config.batch)[rank::size][row]} of step {step + 1}"

    def facts(self) -> dict[str, object]:
        return dict(self.identity)
