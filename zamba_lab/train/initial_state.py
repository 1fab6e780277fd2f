"""An SSM state as a soft prompt: what a model begins from instead of zeros, fitted while all its weights stay as they are.

A prompt acts on a later token of a Mamba layer through the SSM state (and, for the next few tokens, the conv state). Here the SSM states
are the parameters: one for each layer, the same for every text. They take no positions, and are saved and restored as any cache.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from zamba_lab.cache import Cache, LayerCache, Origin
from zamba_lab.model import Zamba
from zamba_lab.ops.loss import IGNORE, summed_loss


def empty_state(model: Zamba) -> Cache:
    """A cache of one row and no positions, with SSM states of zeros: what a model begins from without a cache.

    Raises ValueError if the model has no SSM.
    """
    c = model.config
    if c.mixer == "attention":
        raise ValueError("an initial state is one of the SSM, and mixer='attention' has none: fit a model of Mamba layers")
    weight = model.final_norm.weight
    state = weight.new_zeros(1, c.ssm_heads, c.headdim, c.d_state, dtype=torch.promote_types(weight.dtype, torch.float32))
    return Cache(tuple(LayerCache(ssm=state.clone()) for _ in model.layers), 0, 1, origin=Origin(model))


def fit_state(
    model: Zamba,
    batches: Iterable[tuple[Tensor, Tensor]] | Iterable[Tensor],
    prompt: Tensor | None = None,
    lr: float = 0.003,
    start: Cache | None = None,
    progress: bool = False,
) -> tuple[Cache, list[float]]:
    """Fit the states that a model begins from, by Adam, one step a batch; no weight of the model changes.

    Args:
        batches: (ids, targets) each, both (b, l); targets: the id that is to follow each position, or -100 for none. The loss is
            -log p, a mean over the targets. With a prompt: ids alone, (b, l), texts that may follow it.
        prompt: (1, p) ids. The loss is then KL(p after the prompt || p from the states), a mean over positions.
        start: the result of an earlier fit, to go on from; None: zeros.

    Returns: a cache of one row without positions (`lens.fork(cache, b)` makes b rows of it), and the losses, nats a token, one a batch,
    each before its step. Raises ValueError for a model without SSM, start with tokens, no targets and no prompt, or a loss not finite.
    """
    start = start or empty_state(model)
    if start.length or start.batch != 1:
        raise ValueError(f"a fit starts from one row that has read no tokens: got {start.batch} rows and {start.length} tokens")
    states = [layer.ssm.detach().clone().requires_grad_() for layer in start.layers if layer.ssm is not None]
    optimiser, losses = torch.optim.Adam(states, lr), []
    with frozen(model):
        with torch.no_grad():
            said = None if prompt is None else model.extend(prompt)[1]
        for batch in tqdm(batches, desc="fitting the state", unit="batch", disable=not progress):
            loss = _loss(model, batch, said, states)
            if not torch.isfinite(loss):
                raise ValueError(f"the loss of batch {len(losses)} is {loss.item()}: every batch needs targets, or lr={lr} is too large")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
    return _rows(model, [state.detach() for state in states], 1), losses


@contextmanager
def frozen(model: Zamba) -> Iterator[None]:
    """Inside, no weight of the model asks for a gradient; afterwards those do that did before."""
    asked = [p for p in model.parameters() if p.requires_grad]
    model.requires_grad_(False)
    try:
        yield
    finally:
        for p in asked:
            p.requires_grad_(True)


def _loss(model: Zamba, batch: Tensor | tuple[Tensor, Tensor], said: Cache | None, states: list[Tensor]) -> Tensor:
    """The mean loss of a batch from these states, against its targets or against the model that has read the prompt."""
    ids, targets = (batch, None) if isinstance(batch, Tensor) else batch
    if said is None and targets is None:
        raise ValueError("without a prompt each batch is (ids, targets): got ids alone")
    logits, _ = model.extend(ids, _rows(model, states, len(ids)))
    if said is None:
        return summed_loss(logits, targets) / (targets != IGNORE).sum()
    with torch.no_grad():
        wanted, _ = model.extend(ids, said.map(lambda t: t.repeat_interleave(len(ids), dim=0)))
    both = [t.to(torch.promote_types(t.dtype, torch.float32)).log_softmax(-1).flatten(0, 1) for t in (logits, wanted)]
    return F.kl_div(*both, reduction="batchmean", log_target=True)


def _rows(model: Zamba, states: list[Tensor], b: int) -> Cache:
    """The cache of b rows that begin from the same states."""
    return Cache(tuple(LayerCache(ssm=state.expand(b, -1, -1, -1)) for state in states), 0, b, origin=Origin(model))
