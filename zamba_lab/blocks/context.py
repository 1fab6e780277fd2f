"""What every layer of one pass reads and none changes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Context:
    """One pass over l new positions, s positions in all.

    x0: (b, l, d) token embeddings. mask: (b, l) bool, False at padding, None if there is none. visible: (b or 1, 1, l, s)
    bool (`ops.attention.visible_keys`), or None where there is no padding. turn: cosine and sine of the positions' angles
    (`ops.attention.angles`), None without rotary positions. step: one token in inference with nobody looking, for which
    there are native forms (`native.step`). expected: positions that there will be when a prompt taken in pieces is done.
    """

    x0: Tensor
    mask: Tensor | None = None
    visible: Tensor | None = None
    turn: tuple[Tensor, Tensor] | None = None
    step: bool = False
    expected: int = 0
