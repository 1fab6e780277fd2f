"""What every layer of one pass reads and none changes."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Context:
    """One pass over l new positions, s positions in all.

    x0: (b, l, d) token embeddings. mask: (b, l) bool, False at padding, None if there is none. visible: (b or 1, 1, l, s)
    bool (`ops.attention.visible_keys`), or None where there is no padding. rotary: cosine and sine of the positions' angles
    (`ops.attention.angles`), None without rotary positions. final_length: positions there will be once the prompt is read.
    """

    x0: Tensor
    mask: Tensor | None = None
    visible: Tensor | None = None
    rotary: tuple[Tensor, Tensor] | None = None
    final_length: int = 0
