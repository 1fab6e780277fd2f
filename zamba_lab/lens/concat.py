"""X-ray of the concatenation: a shared block reads [x, x0], the stream beside the embeddings. Which half does it use?

Both halves pass one norm and then products that are linear, adapters and rotary positions included. So a query is q_x + q_x0,
a key k_x + k_x0, and each attention score falls into four parts, exactly: the query's half, stream or embedding, by the key's.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor

from zamba_lab.lens.mixers import norm_factor, rsqrt_mean_square
from zamba_lab.lens.passes import fixed, run
from zamba_lab.lens.terms import require_index, require_invocations, widened
from zamba_lab.model import Zamba
from zamba_lab.trace import Trace

HALVES = ("stream", "embedding")


@dataclass(frozen=True)
class ScoreParts:
    """The attention scores of one invocation, by the half the query and the half the key came from."""

    invocation: int
    depth: int
    parts: Tensor  # (2, 2, b, h, l, s): query's half, key's half, in the order of HALVES; 0 where hidden
    scores: Tensor  # (b, h, l, s): their sum as the pass recorded it, scaled; 0 where hidden
    visible: Tensor  # (b, h, l, s) bool: the keys that each row reads; a row of padding, none

    @property
    def error(self) -> float:
        """|sum of the parts - scores| / |scores|."""
        return float(torch.linalg.vector_norm(self.parts.sum((0, 1)) - self.scores) / torch.linalg.vector_norm(self.scores))

    @property
    def shares(self) -> Tensor:
        """(2, 2, b, h): how much of what moves the attention each part brings; the four sum to 1, and may be below 0.

        A constant on a whole row changes no probability. So scores and parts are first freed of their rows' means over the
        keys that the row reads; a share is then <part, scores> / |scores|^2.
        """
        scores = centred(self.scores, self.visible)
        return (centred(self.parts, self.visible) * scores).sum((-2, -1)) / scores.square().sum((-2, -1))


def require_concat(model: Zamba) -> None:
    """Raise ValueError if no block reads the embeddings beside the stream."""
    require_invocations(model.config)
    if not model.config.concat_embedding:
        raise ValueError("this needs concat_embedding=True: this config's blocks read the stream alone")


def score_parts(model: Zamba, ids: Tensor, invocation: int, mask: Tensor | None = None) -> ScoreParts:
    """Take the attention scores of one invocation apart by the halves of the block's input.

    Args:
        ids: (b, l). invocation: 0 <= invocation < n_invocations. mask: (b, l), see `passes`.

    Raises ValueError if the config has no concatenation or no such invocation.
    """
    require_concat(model)
    require_index("invocation", invocation, model.config.n_invocations)
    return parts_by_invocation(model, ids, [invocation], mask)[1][0]


@torch.no_grad()
def parts_by_invocation(model: Zamba, ids: Tensor, invocations: Iterable[int], mask: Tensor | None) -> tuple[Trace, list[ScoreParts]]:
    """`score_parts` of some invocations, and the trace of the pass with their `input`."""
    names = {k: f"invocation.{k}" for k in invocations}
    trace = run(model, ids, keep=[f"{at}.{point}" for at in names.values() for point in ("input", "attn_scores")], mask=mask)
    keep, by_half = [f"{at}.{point}" for at in names.values() for point in ("q", "k")], []
    for half in range(2):  # every input is that of the pass, with the other half 0
        edit = {f"{at}.input": fixed(only(half, trace[f"{at}.input"])) for at in names.values()}
        by_half.append(run(model, ids, keep=keep, edit=edit, mask=mask))
    return trace, [_parts(model, trace, by_half, k, mask) for k in names]


def _parts(model: Zamba, trace: Trace, by_half: list[Trace], k: int, mask: Tensor | None) -> ScoreParts:
    c, at = model.config, f"invocation.{k}"
    joined, scores = (widened(trace[f"{at}.{point}"]) for point in ("input", "attn_scores"))
    queries, keys = [], []
    for half, alone in enumerate(by_half):
        # The norm scaled the half by its own mean square, not by that of both.
        factor = rsqrt_mean_square(joined, c.norm_eps) / rsqrt_mean_square(only(half, joined), c.norm_eps)
        q, key = (widened(alone[f"{at}.{point}"]) * factor[:, None] for point in ("q", "k"))
        queries.append(q)
        keys.append(repeat(key, "b h s p -> b (h i) s p", i=c.attn_heads // c.kv_heads))
    parts = torch.stack([torch.stack([q @ key.mT * c.attn_scale for key in keys]) for q in queries])
    visible = scores > -torch.inf
    if mask is not None:
        visible = visible & rearrange(mask.bool(), "b l -> b 1 l 1")
    return ScoreParts(k, c.hybrid_layers[k], parts.where(visible, 0), scores.where(visible, 0), visible)


def only(half: int, joined: Tensor) -> Tensor:
    """(b, l, 2d) with the other half 0; half: an index of HALVES."""
    halves = [part if i == half else torch.zeros_like(part) for i, part in enumerate(joined.chunk(2, dim=-1))]
    return torch.cat(halves, dim=-1)


def centred(table: Tensor, visible: Tensor) -> Tensor:
    """A table less each row's mean over its visible columns; 0 where hidden, as it was. Both (..., l, s)"""
    return (table - (table.sum(-1) / visible.sum(-1))[..., None]).where(visible, 0)


@dataclass(frozen=True)
class ConcatShares:
    """Which half the blocks use, down the depth. k over invocations."""

    depths: tuple[int, ...]
    input: Tensor  # (k, b, l): the embedding's share of the squared norm of norm_in's output, its weight included
    scores: Tensor  # (2, 2, k, b, h): `ScoreParts.shares`


@torch.no_grad()
def concat_shares(model: Zamba, ids: Tensor, mask: Tensor | None = None) -> ConcatShares:
    """The embeddings' share in what each invocation reads and in what moves its attention.

    Args:
        ids: (b, l), l >= 2: with one key there is nothing to choose. mask: (b, l), see `passes`.

    Raises ValueError if the config has no concatenation, or l < 2.
    """
    require_concat(model)
    if ids.shape[-1] < 2:
        raise ValueError(f"with one key nothing is chosen: ids must be (batch, length >= 2), got {tuple(ids.shape)}")
    c = model.config
    trace, every = parts_by_invocation(model, ids, range(c.n_invocations), mask)
    shares = []
    for k, block in enumerate(c.blocks_by_invocation):
        joined = widened(trace[f"invocation.{k}.input"])
        normed = norm_factor(model.shared_blocks[block].norm_in, joined) * joined
        shares.append(only(1, normed).square().sum(-1) / normed.square().sum(-1))
    return ConcatShares(c.hybrid_layers, torch.stack(shares), torch.stack([parts.shares for parts in every], dim=2))
