"""One step of the optimiser: the loss of a batch, its gradient, and AdamW."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import ContextManager

import torch
from torch import Tensor, nn

from zamba_lab.train.batches import IGNORE, Piece
from zamba_lab.train.team import ALONE, Alone


def train_step(
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    pieces: Sequence[Piece],
    lr: float,
    clip: float,
    autocast: Callable[[], ContextManager] = nullcontext,
    team: Alone = ALONE,
) -> tuple[float, float]:
    """One step on a batch that comes in pieces: loss and gradient are those of the joined batch.

    Nothing is changed where the gradient is not finite. Returns: the loss before the step in nats a token, and the norm of
    its gradient before clipping.
    """
    optimiser.zero_grad(set_to_none=True)
    loss = gradient(module, pieces, autocast, team)
    norm = team.clip([p for group in optimiser.param_groups for p in group["params"]], clip)
    for group in optimiser.param_groups:
        group["lr"] = lr * group["share"]
    if torch.isfinite(norm):
        optimiser.step()
    return loss.item(), norm.item()


def gradient(
    module: nn.Module, pieces: Sequence[Piece], autocast: Callable[[], ContextManager] = nullcontext, team: Alone = ALONE
) -> Tensor:
    """Add the gradient of the mean loss over all the pieces' targets to the parameters'; that mean."""
    device = next(module.parameters()).device
    asked = sum(int((targets != IGNORE).sum()) for _, targets in pieces)
    total = team.mean(torch.tensor(asked, dtype=torch.float64)).item()  # so that the mean over processes is that over targets
    loss = torch.zeros((), dtype=torch.float64)
    for k, (ids, targets) in enumerate(pieces):
        with team.syncing(module, last=k == len(pieces) - 1):
            with autocast():
                part = module(ids.to(device), targets=targets.to(device)) / total
            part.backward()
        loss += part.detach().cpu()
    return team.mean(loss)


def autocasting(precision: str, device: torch.device) -> Callable[[], ContextManager]:
    """What a forward pass runs under: torch's autocast to bfloat16, or nothing. precision: as `resolved` gives it."""
    return partial(torch.autocast, device.type, torch.bfloat16) if precision == "bf16" else nullcontext


def resolved(precision: str, device: torch.device) -> str:
    """ "auto" as what it means on this device: bf16 on a GPU that has it. A CPU computes in float32, unless asked."""
    if precision != "auto":
        return precision
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
