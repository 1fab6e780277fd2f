"""The attention of the shared blocks: one set of weights, a different map at each invocation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zamba_lab.lens.passes import run
from zamba_lab.model import Zamba


@dataclass(frozen=True)
class AttentionMaps:
    """The probabilities of one shared block at each of its invocations, in order of depth."""

    block: int
    invocations: tuple[int, ...]
    depths: tuple[int, ...]
    probs: Tensor             # (k, b, h, l, s), k over `invocations`; each row over s sums to 1


def attention_by_invocation(model: Zamba, ids: Tensor, block: int = 0) -> AttentionMaps:
    """Where block `block` looks at each of its invocations.

    Args:
        ids: (b, l).
        block: 0 <= block < n_shared_blocks.

    Raises ValueError if the model has no such block.
    """
    c = model.config
    if not 0 <= block < c.n_shared_blocks:
        raise ValueError(f"block must be one of the model's shared blocks: got {block}, n_shared_blocks "
                         f"{c.n_shared_blocks}")
    invocations = tuple(k for k, owner in enumerate(c.blocks_by_invocation) if owner == block)
    names = [f"invocation.{k}.attn_probs" for k in invocations]
    trace = run(model, ids, keep=names)
    return AttentionMaps(block, invocations, tuple(c.hybrid_layers[k] for k in invocations),
                         torch.stack([trace[name] for name in names]))
