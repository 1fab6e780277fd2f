"""The attention of the shared blocks: one set of weights, a different map at each invocation, and why it differs."""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from zamba_lab.config import ZambaConfig
from zamba_lab.lens.interventions import intervene
from zamba_lab.lens.passes import fixed, run, token_positions
from zamba_lab.lens.rewire import lend
from zamba_lab.lens.terms import require_invocations, widened
from zamba_lab.model import Zamba

POINTS = ("attn_probs", "attn_out", "mlp_out", "link_out")  # that `drift` can look at


@dataclass(frozen=True)
class AttentionMaps:
    """The probabilities of one shared block at each of its invocations, in order of depth."""

    block: int
    invocations: tuple[int, ...]
    depths: tuple[int, ...]
    probs: Tensor  # (k, b, h, l, s), k over `invocations`; each row over s sums to 1


def attention_by_invocation(model: Zamba, ids: Tensor, block: int = 0, mask: Tensor | None = None) -> AttentionMaps:
    """The attention probabilities of block `block` at each of its invocations.

    Args:
        ids: (b, l). mask: (b, l), see `passes`.
        block: 0 <= block < n_shared_blocks.

    Raises ValueError if the model has no such block.
    """
    invocations, depths = invocations_of(model.config, block)
    names = [f"invocation.{k}.attn_probs" for k in invocations]
    trace = run(model, ids, keep=names, mask=mask)
    return AttentionMaps(block, invocations, depths, torch.stack([trace[name] for name in names]))


def invocations_of(config: ZambaConfig, block: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
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


def attention_habits(model: Zamba, ids: Tensor, mask: Tensor | None = None) -> AttentionHabits:
    """Entropy, distance and sink share of each head at each invocation, for (b, l) ids; mask: (b, l), see `passes`.

    One invocation's maps are summarised at a time. Raises ValueError if the model has no shared block.
    """
    require_invocations(model.config)
    trace = run(model, ids, keep=["invocation.*.attn_probs"], mask=mask)
    each = [habits(trace[f"invocation.{k}.attn_probs"], mask) for k in range(model.config.n_invocations)]
    return AttentionHabits(model.config.blocks_by_invocation, model.config.hybrid_layers, *(torch.stack(part) for part in zip(*each)))


def habits(probs: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Entropy, mean distance and first token's share of each row. probs: (b, ..., l, s), l = s, causal. Each (b, ..., l)."""
    probs = widened(probs)
    mask = torch.ones(len(probs), probs.shape[-1], device=probs.device) if mask is None else mask
    position = rearrange(token_positions(mask).to(probs.dtype), "b s -> b " + "1 " * (probs.ndim - 3) + "s")
    first = mask.bool() & (mask.bool().cumsum(1) == 1)
    sink = (probs * first.view(len(mask), *[1] * (probs.ndim - 2), -1)).sum(-1)
    return torch.special.entr(probs).sum(-1), position - (probs * position[..., None, :]).sum(-1), sink


def divergence(probs: Tensor, mask: Tensor | None = None) -> Tensor:
    """How differently the invocations of a block attend: the Jensen-Shannon divergence of each pair's rows, in nats.

    Args:
        probs: (k, b, h, l, s), as in `AttentionMaps`. mask: (b, l), that of the pass.

    Returns: (k, k, b, h), means over rows; 0 between equal maps, log 2 where no token is read by both.
    """
    probs = widened(probs)
    entropy = torch.special.entr(probs).sum(-1)  # (k, b, h, l)
    pairs = torch.stack([torch.special.entr((probs + other) / 2).sum(-1) - (entropy + own) / 2 for other, own in zip(probs, entropy)])
    if mask is None:
        return pairs.mean(-1).clamp(min=0)
    rows = rearrange(mask.to(pairs.dtype), "b l -> b 1 l")
    return ((pairs * rows).sum(-1) / rows.sum(-1)).clamp(min=0)


@dataclass(frozen=True)
class Drift:
    """One shared block with the input of its i-th invocation and the adapters of its j-th.

    The sums of squares are those of a two-way table, over positions and channels, per sequence: (b,). They add up to
    `total`. `inputs` is what changes with the input whichever the adapters, `adapters` the other way about, `both` what
    neither alone explains.
    """

    block: int
    point: str
    invocations: tuple[int, ...]
    depths: tuple[int, ...]
    values: Tensor  # (i, j, b, ...): the point's activation, 0 at padding
    total: Tensor
    inputs: Tensor
    adapters: Tensor
    both: Tensor

    @property
    def distance(self) -> Tensor:
        """(i, j, b): |value_ij - value_ii| / |value_ii|: how far other adapters take the block from what it does there."""
        own = torch.stack([self.values[i, i] for i in range(len(self.values))])  # (i, b, ...)
        return squares(self.values - own[:, None], 3).sqrt() / squares(own, 2)[:, None].sqrt()


def drift(model: Zamba, ids: Tensor, block: int = 0, point: str = "mlp_out", mask: Tensor | None = None) -> Drift:
    """Run one shared block on the input of each of its invocations with the adapters of each of its invocations.

    An invocation has its own input and its own adapters, and a model only ever shows the two together. The table's diagonal
    is the model itself.

    Args:
        ids: (b, l). mask: (b, l), see `passes`.
        block: 0 <= block < n_shared_blocks.
        point: the value to compare: "attn_probs", "attn_out", "mlp_out" or "link_out". The link goes with the adapters;
            adapters on the MLP alone leave the attention as it is.

    Raises ValueError if the model has no such block or the point is none of these.
    """
    if point not in POINTS:
        raise ValueError(f"point must be one of {', '.join(POINTS)}: got {point!r}")
    invocations, depths = invocations_of(model.config, block)
    streams, names = [f"layers.{depth}.resid_in" for depth in depths], [f"layers.{depth}.shared.{point}" for depth in depths]
    trace = run(model, ids, keep=streams, mask=mask)
    edit, columns = {name: fixed(trace[name]) for name in streams}, []
    for owner in depths:
        lent = intervene(model, *(lend(depth, owner) for depth in depths if depth != owner))
        column = run(lent, ids, keep=names, edit=edit, mask=mask)
        columns.append(torch.stack([widened(column[name]) for name in names]))
    values = torch.stack(columns, dim=1)
    if mask is not None:
        rows = rearrange(mask.bool(), "b l -> 1 1 b 1 l 1" if point == "attn_probs" else "b l -> 1 1 b l 1")
        values = values.where(rows, 0)
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
    total, rows, columns, left = (squares(part, 3).sum((0, 1)) for part in parts)
    return total, rows, columns, left


def squares(values: Tensor, kept: int) -> Tensor:
    """The sum of squares over all axes but the first `kept`."""
    return values.square().flatten(kept).sum(-1)


@torch.no_grad()
def link_ratios(model: Zamba, ids: Tensor, mask: Tensor | None = None) -> list[float]:
    """RMS(link out) / RMS(stream) of each invocation, over tokens: how large its output is where it enters the mixer's input.

    Far below 1 the block hardly matters, and its gradient is small: the model is then trained as if it were its SSM.

    Args:
        ids: (b, l). mask: (b, l), see `passes`. Returns: one an invocation, none where there is no shared block.
    """
    depths, chosen = model.config.hybrid_layers, ... if mask is None else mask.bool()
    names = [f"layers.{depth}.{point}" for depth in depths for point in ("shared.link_out", "resid_in")]
    trace = run(model, ids, keep=names, mask=mask)
    rms = [float(trace[name][chosen].double().square().mean().sqrt()) for name in names]
    return [out / stream for out, stream in zip(rms[::2], rms[1::2])]


@torch.no_grad()
def constant_shares(model: Zamba, ids: Tensor, mask: Tensor | None = None) -> list[float]:
    """How much of each invocation's output is one vector, the same at every token: |mean of link_out|^2 / mean |link_out|^2.

    Near 1 the block is a bias: it says next to nothing about the text, whatever its attention does.

    Args:
        ids: (b, l). mask: (b, l), see `passes`. Returns: in 0..1, one an invocation, none where there is no shared block.
    """
    names, chosen = [f"invocation.{k}.link_out" for k in range(model.config.n_invocations)], ... if mask is None else mask.bool()
    trace = run(model, ids, keep=names, mask=mask)
    outputs = [trace[name][chosen].double().reshape(-1, model.config.d_model) for name in names]
    return [float(out.mean(0).square().sum() / out.square().sum(-1).mean().clamp(min=1e-300)) for out in outputs]
