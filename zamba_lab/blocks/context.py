"""What every layer of one pass reads and none changes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Context:
    """One pass over l new positions, s positions in all.

    x0: (b, l, d) token embeddings. positions: (b or 1, l) index of each token among the real tokens of its row.
    mask: (b, l) bool, False at padding, None if there is none. visible: (b or 1, 1, l, s) bool, or None for plain
    causal attention (`ops.attention.visible_keys`).
    """

    x0: Tensor
    positions: Tensor
    mask: Tensor | None = None
    visible: Tensor | None = None
