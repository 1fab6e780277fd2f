"""One forward pass, looked into: what every lens starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from zamba_lab.model import Zamba
from zamba_lab.trace import Trace


@torch.no_grad()
def run(model: Zamba, ids: Tensor, keep: Iterable[str] = (), edit: dict[str, Callable[[Tensor], Tensor]] | None = None) -> Trace:
    """Run the model on (b, l) ids without gradients and return the trace of the points named by `keep`."""
    trace = Trace(keep=keep, edit=edit)
    model(ids, trace=trace)
    return trace


def next_token_loss(model: Zamba, ids: Tensor, edit: dict[str, Callable[[Tensor], Tensor]] | None = None) -> Tensor:
    """-log p(token t + 1 | tokens 0..t) in nats, for each token but the first.

    Args:
        ids: (b, l), l >= 2.
        edit: trace edits in force during the pass, as `Trace` takes them.

    Returns: (b, l - 1), float32 or wider: entry t belongs to token t + 1. Raises ValueError if l < 2.
    """
    return token_losses(run(model, ids, keep=["logits"], edit=edit)["logits"], ids)


def token_losses(logits: Tensor, ids: Tensor) -> Tensor:
    """The same from (b, l, v) logits that are at hand."""
    if ids.ndim != 2 or ids.shape[1] < 2:
        raise ValueError(f"a next-token loss needs ids of shape (batch, length >= 2): got {tuple(ids.shape)}")
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = F.cross_entropy(rearrange(logits[:, :-1], "b l v -> (b l) v"), ids[:, 1:].flatten(), reduction="none")
    return rearrange(losses, "(b l) -> b l", b=len(ids))
