"""The attention of the shared blocks: one set of weights, a different map at each invocation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zamba_lab.config import ZambaConfig
from zamba_lab.lens.passes import run
from zamba_lab.lens.terms import require_invocations, widened
from zamba_lab.model import Zamba


@dataclass(frozen=True)
class AttentionMaps:
    """The probabilities of one shared block at each of its invocations, in order of depth."""

    block: int
    invocations: tuple[int, ...]
    depths: tuple[int, ...]
    probs: Tensor  # (k, b, h, l, s), k over `invocations`; each row over s sums to 1


def attention_by_invocation(model: Zamba, ids: Tensor, block: int = 0) -> AttentionMaps:
    """Where block `block` looks at each of its invocations.

    Args:
        ids: (b, l).
        block: 0 <= block < n_shared_blocks.

    Raises ValueError if the model has no such block.
    """
    invocations, depths = uses(model.config, block)
    names = [f"invocation.{k}.attn_probs" for k in invocations]
    trace = run(model, ids, keep=names)
    return AttentionMaps(block, invocations, depths, torch.stack([trace[name] for name in names]))


def uses(config: ZambaConfig, block: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The invocations of a shared block and their depths. Raises ValueError if there is no such block."""
    if not 0 <= block < config.n_shared_blocks:
        raise ValueError(f"block must be one of the model's shared blocks: got {block}, n_shared_blocks {config.n_shared_blocks}")
    invocations = tuple(k for k, owner in enumerate(config.blocks_by_invocation) if owner == block)
    return invocations, tuple(config.hybrid_layers[k] for k in invocations)


@dataclass(frozen=True)
class AttentionHabits:
    """What each head of each invocation does with its rows. All (k, b, h, l), k over every invocation of the model."""

    blocks: tuple[int, ...]  # the shared block of each invocation
    depths: tuple[int, ...]
    entropy: Tensor  # nats, 0 to log(position + 1)
    distance: Tensor  # mean number of tokens back, 0 to position
    sink: Tensor  # the weight on the first token, where heads rest that have nothing to read; 0 to 1


def attention_habits(model: Zamba, ids: Tensor) -> AttentionHabits:
    """Entropy, distance and sink share of each head at each invocation, for (b, l) ids.

    One invocation's maps are summarised at a time. Raises ValueError if the model has no shared block.
    """
    require_invocations(model.config)
    trace = run(model, ids, keep=["invocation.*.attn_probs"])
    found = [habits(trace[f"invocation.{k}.attn_probs"]) for k in range(model.config.n_invocations)]
    return AttentionHabits(model.config.blocks_by_invocation, model.config.hybrid_layers, *(torch.stack(part) for part in zip(*found)))


def habits(probs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Entropy, mean distance and first token's share of each row. probs: (..., l, s), l = s, causal. Each (..., l)."""
    probs = widened(probs)
    place = torch.arange(probs.shape[-1], device=probs.device, dtype=probs.dtype)
    return torch.special.entr(probs).sum(-1), place - probs @ place, probs[..., 0]


def divergence(probs: Tensor) -> Tensor:
    """How differently the invocations of a block look: the Jensen-Shannon divergence of each pair's rows, in nats.

    Args:
        probs: (k, b, h, l, s), as in `AttentionMaps`.

    Returns: (k, k, b, h), means over rows; 0 between equal maps, log 2 where no token is read by both.
    """
    probs = widened(probs)
    entropy = torch.special.entr(probs).sum(-1)  # (k, b, h, l)
    pairs = [torch.special.entr((probs + other) / 2).sum(-1) - (entropy + own) / 2 for other, own in zip(probs, entropy)]
    return torch.stack(pairs).mean(-1).clamp(min=0)
