"""X-ray of the concatenation: a shared block reads [x, x0], the stream beside the embeddings. Which half does it use?

Both halves pass one norm and then products that are linear, adapters and rotation included. So a query is q_x + q_x0, a key
k_x + k_x0, and each attention score falls into four parts, exactly: who asks by its stream or by its embedding, and who is
found by its stream or by its embedding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from zamba_lab.blocks.lora import adapted
from zamba_lab.lens.passes import run
from zamba_lab.lens.mixers import norm_factor
from zamba_lab.lens.terms import require_index, require_invocations, widened
from zamba_lab.model import Zamba
from zamba_lab.ops.attention import attention_scores, turn
from zamba_lab.trace import Trace

HALVES = ("stream", "embedding")


@dataclass(frozen=True)
class ScoreParts:
    """The attention scores of one invocation, by the half the query and the half the key came from."""

    invocation: int
    depth: int
    parts: Tensor  # (2, 2, b, h, l, s): query's half, key's half, in the order of HALVES; 0 where s > l
    scores: Tensor  # (b, h, l, s): their sum as the pass recorded it, scaled; 0 where s > l

    @property
    def error(self) -> float:
        """|sum of the parts - scores| / |scores|."""
        return float(torch.linalg.vector_norm(self.parts.sum((0, 1)) - self.scores) / torch.linalg.vector_norm(self.scores))

    @property
    def shares(self) -> Tensor:
        """(2, 2, b, h): how much of what moves the attention each part brings; the four sum to 1, and may be below 0.

        A constant on a whole row changes no probability. So scores and parts are first freed of their rows' means over the
        keys that the row sees; a share is then <part, scores> / |scores|^2.
        """
        scores = centred(self.scores)
        return (centred(self.parts) * scores).sum((-2, -1)) / scores.square().sum((-2, -1))


def require_concat(model: Zamba) -> None:
    """Raise ValueError if no block reads the embeddings beside the stream."""
    require_invocations(model.config)
    if not model.config.concat_embedding:
        raise ValueError("this needs concat_embedding=True: this config's blocks read the stream alone")


@torch.no_grad()
def score_parts(model: Zamba, ids: Tensor, invocation: int) -> ScoreParts:
    """Take the attention scores of one invocation apart by the halves of the block's input.

    Args:
        ids: (b, l). invocation: 0 <= invocation < n_invocations.

    Raises ValueError if the config has no concatenation or no such invocation.
    """
    require_concat(model)
    require_index("invocation", invocation, model.config.n_invocations)
    return parts_of(model, run(model, ids, keep=[f"invocation.{invocation}.{name}" for name in ("input", "attn_scores")]), invocation)


def parts_of(model: Zamba, trace: Trace, invocation: int) -> ScoreParts:
    """`score_parts` from a trace that kept the invocation's `input` and `attn_scores`."""
    c = model.config
    depth = c.hybrid_layers[invocation]
    block, adapters = model.blocks_by_depth()[depth], model.layers[depth].invocation.adapters
    joined, scores = trace[f"invocation.{invocation}.input"], widened(trace[f"invocation.{invocation}.attn_scores"])
    positions = torch.arange(joined.shape[1], device=joined.device)[None]
    angles = model.rotary(positions, joined.dtype)
    halves = []
    for half in split(norm_factor(block.norm_in, widened(joined)) * joined):
        q, k = (
            rearrange(adapted(getattr(block.attention, name), adapters, name, half.to(joined.dtype)), "b l (h p) -> b h l p", p=c.head_dim)
            for name in ("q", "k")
        )
        halves.append((q, k) if angles is None else (turn(q, *angles), turn(k, *angles)))
    seen = torch.ones_like(positions, dtype=torch.bool)  # every key: hidden ones go below
    parts = torch.stack([torch.stack([widened(attention_scores(q, k, c.attn_scale, seen)) for _, k in halves]) for q, _ in halves])
    return ScoreParts(invocation, depth, parts.tril(), scores.tril())


def split(joined: Tensor) -> tuple[Tensor, Tensor]:
    """The stream's half beside zeros, and zeros beside the embedding's. (b, l, 2d) -> two (b, l, 2d)"""
    stream, embedding = joined.chunk(2, dim=-1)
    return (torch.cat([stream, torch.zeros_like(embedding)], dim=-1), torch.cat([torch.zeros_like(stream), embedding], dim=-1))


def centred(table: Tensor) -> Tensor:
    """A lower-triangular table less each row's mean over what the row sees. (..., l, s), l = s"""
    count = torch.arange(1, table.shape[-1] + 1, device=table.device, dtype=table.dtype)
    return (table - (table.sum(-1) / count)[..., None]).tril()


@dataclass(frozen=True)
class ConcatShares:
    """Which half the blocks hear, down the depth. k over invocations."""

    depths: tuple[int, ...]
    loudness: Tensor  # (k, b, l): the embedding's share of the squared norm of norm_in's output, its weight included
    scores: Tensor  # (2, 2, k, b, h): `ScoreParts.shares`


@torch.no_grad()
def concat_shares(model: Zamba, ids: Tensor) -> ConcatShares:
    """The embeddings' share in what each invocation reads and in what moves its attention.

    Args:
        ids: (b, l), l >= 2: with one key there is nothing to choose.

    Raises ValueError if the config has no concatenation, or l < 2.
    """
    require_concat(model)
    if ids.shape[-1] < 2:
        raise ValueError(f"with one key nothing is chosen: ids must be (batch, length >= 2), got {tuple(ids.shape)}")
    c = model.config
    trace = run(model, ids, keep=["invocation.*.input", "invocation.*.attn_scores"])
    loudness, shares = [], []
    for k, block in enumerate(c.blocks_by_invocation):
        joined = widened(trace[f"invocation.{k}.input"])
        normed = norm_factor(model.shared_blocks[block].norm_in, joined) * joined
        loudness.append(split(normed)[1].square().sum(-1) / normed.square().sum(-1))
        shares.append(parts_of(model, trace, k).shares)
    return ConcatShares(c.hybrid_layers, torch.stack(loudness), torch.stack(shares, dim=2))
