"""Who trains: one process. `several.py` has the same interface for many; the loop does not ask which it has."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import ContextManager

import torch
from torch import Tensor, nn


class Alone:
    """One process, with everything."""

    rank, size = 0, 1

    @property
    def device(self) -> torch.device:
        """Where the model is to be."""
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def wrap(self, model: nn.Module, config) -> nn.Module:
        """Prepare the model, before the optimiser is made; what is called in its place in a training step."""
        return model

    def syncing(self, module: nn.Module, last: bool) -> ContextManager:
        """Around one piece of a step: gradients are exchanged after the last."""
        return nullcontext()

    def mean(self, value: Tensor) -> Tensor:
        """The mean over the processes."""
        return value

    def any(self, said: bool) -> bool:
        """Whether any process says so."""
        return said

    def clip(self, parameters: Iterable[nn.Parameter], most: float) -> Tensor:
        """Scale the gradient to a norm of at most `most`; the norm before."""
        return nn.utils.clip_grad_norm_(parameters, most)

    def whole(self, value: Tensor) -> Tensor:
        """All of a tensor of which this process may hold a part."""
        return value

    def placed(self, value: Tensor, like: Tensor) -> Tensor:
        """The part of a whole tensor that this process holds of `like`, on its device."""
        return value.to(like.device)

    def save(self, write: Callable, model: nn.Module, folder: Path) -> None:
        """Write the trained model, once."""
        write(model, folder)

    def wait(self) -> None:
        """Until all are here."""


ALONE = Alone()
