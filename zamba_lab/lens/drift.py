"""Why a shared block does different things at different depths: because it is given something else, or adapted otherwise.

Every use of a block has its own input and its own adapters, and a model only ever shows the two together. Here each input
is run with each use's adapters: a square table, whose diagonal is the model itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from zamba_lab.blocks import Context
from zamba_lab.cache import LayerCache
from zamba_lab.lens.attention import uses
from zamba_lab.lens.passes import run
from zamba_lab.lens.terms import widened
from zamba_lab.model import Zamba
from zamba_lab.trace import Trace

POINTS = ("attn_probs", "attn_out", "mlp_out", "link_out")


@dataclass(frozen=True)
class Drift:
    """One shared block with the input of its i-th use and the adapters of its j-th.

    The sums of squares are those of a two-way table, over positions and channels, per sequence: (b,). They add up to
    `total`. `inputs` is what changes with the input whichever the adapters, `adapters` the other way about, `both` what
    neither alone explains.
    """

    block: int
    point: str
    invocations: tuple[int, ...]
    depths: tuple[int, ...]
    values: Tensor  # (i, j, b, ...): the point's activation
    total: Tensor
    inputs: Tensor
    adapters: Tensor
    both: Tensor

    @property
    def distance(self) -> Tensor:
        """(i, j, b): |value_ij - value_ii| / |value_ii|: how far other adapters take the block from what it does there."""
        own = torch.stack([self.values[i, i] for i in range(len(self.values))])  # (i, b, ...)
        return squares(self.values - own[:, None], 3).sqrt() / squares(own, 2)[:, None].sqrt()


@torch.no_grad()
def drift(model: Zamba, ids: Tensor, block: int = 0, point: str = "mlp_out") -> Drift:
    """Run one shared block on the input of each of its uses with the adapters of each of its uses.

    Args:
        ids: (b, l).
        block: 0 <= block < n_shared_blocks.
        point: where to look: "attn_probs", "attn_out", "mlp_out" or "link_out". The link belongs to the use and goes with
            the adapters; adapters on the MLP alone leave the attention as it is.

    Raises ValueError if the model has no such block or the point is none of these.
    """
    if point not in POINTS:
        raise ValueError(f"point must be one of {', '.join(POINTS)}: got {point!r}")
    invocations, depths = uses(model.config, block)
    trace = run(model, ids, keep=["embed", *(f"layers.{depth}.resid_in" for depth in depths)])
    positions = torch.arange(ids.shape[1], device=ids.device)[None]
    ctx = Context(trace["embed"], rotary=model.rotary(positions, trace["embed"].dtype))
    rows = []
    for i in depths:
        row = []
        for j in depths:
            look = Trace(keep=[point])
            model.layers[j].invocation(trace[f"layers.{i}.resid_in"], model.shared_blocks[block], ctx, LayerCache(), look)
            row.append(widened(look[point]))
        rows.append(torch.stack(row))
    values = torch.stack(rows)
    return Drift(block, point, invocations, depths, values, *two_way(values))


def two_way(values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums of squares around the mean of a two-way table: total, of rows, of columns, of what is left.

    Args:
        values: (i, j, b, ...). Squares are summed over all axes but b.

    Returns: four (b,), the first the sum of the others.
    """
    mean = values.mean((0, 1))
    row, column = values.mean(1, keepdim=True) - mean, values.mean(0) - mean
    parts = (values - mean, row.expand_as(values), column.expand_as(values), values - mean - row - column)
    return tuple(squares(part, 3).sum((0, 1)) for part in parts)


def squares(values: Tensor, kept: int) -> Tensor:
    """The sum of squares over all axes but the first `kept`."""
    return values.square().flatten(kept).sum(-1)
