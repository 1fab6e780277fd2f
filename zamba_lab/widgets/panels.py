"""The panels of the first notebook: which control picks what. The numbers are `lens`'s, the pictures `viz`'s."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from zamba_lab import lens, viz
from zamba_lab.config import ZambaConfig
from zamba_lab.model import Zamba
from zamba_lab.viz.architecture import block_name
from zamba_lab.widgets.panel import Panel, choice, slider

EVERY = "every"  # not None: a Dropdown takes that for "nothing chosen"


def labels(model: Zamba, ids: Tensor, tokens: Sequence[str] | None) -> list[str]:
    """A label for each token of a (1, l) sequence: those given, or the tokenizer's, or the ids themselves.

    Raises ValueError if ids hold more than one sequence.
    """
    if ids.ndim != 2 or len(ids) != 1:
        raise ValueError(f"a panel shows one sequence, ids of shape (1, length): got {tuple(ids.shape)}")
    if tokens is None:
        tokens = map(str, ids[0].tolist()) if model.tokenizer is None else model.tokenizer.pieces(ids[0].tolist())
    return list(tokens)


def with_invocations(model: Zamba) -> ZambaConfig:
    """The model's config; raises ValueError if it has no shared block to look at."""
    if not model.config.n_invocations:
        raise ValueError("this panel needs a model with a shared block: got n_shared_blocks 0")
    return model.config


def states_panel(model: Zamba, ids: Tensor, tokens: Sequence[str] | None = None) -> Panel:
    """The norm of one head's SSM state after every token, at every depth."""
    tokens, norms = labels(model, ids, tokens), lens.state_norms(model, ids)[:, 0]  # (i, l, h)

    def draw(head: int):
        return viz.heatmap(
            norms[:, :, head],
            tokens,
            [str(i) for i in range(len(norms))],
            f"SSM state norm, head {head}",
            value_label="norm of the state",
            subtitle="how much each layer's state holds after each token",
        )

    return Panel(draw, head=slider("head", norms.shape[-1], "which SSM head of every layer"))


def attention_panel(model: Zamba, ids: Tensor, tokens: Sequence[str] | None = None) -> Panel:
    """The attention of one head of one shared block, at each invocation of that block."""
    tokens, c = labels(model, ids, tokens), with_invocations(model)
    maps = [lens.attention_by_invocation(model, ids, block) for block in range(c.n_shared_blocks)]

    def draw(block: int, head: int):
        found = maps[block]
        names = [f"invocation {k}, depth {i}" for k, i in zip(found.invocations, found.depths)]
        return viz.attention_grid(
            found.probs[:, 0, head],
            tokens,
            names,
            f"Block {block_name(block)}, attention head {head}",
            subtitle="the same weights at each place; a row is a token, its colours are what it reads",
        )

    blocks = [(block_name(block), block) for block in range(c.n_shared_blocks)]
    return Panel(
        draw, block=choice("shared block", blocks, "which set of shared weights"), head=slider("head", c.attn_heads, "which attention head")
    )


def decay_panel(model: Zamba, ids: Tensor, tokens: Sequence[str] | None = None) -> Panel:
    """The half-life of every head's state in one layer, and of one head along the text."""
    tokens, half_life = labels(model, ids, tokens), lens.decay(model, ids).half_life[:, 0]  # (i, l, h)

    def draw(depth: int, head: int):
        return viz.half_life_ranges(
            half_life[depth],
            tokens,
            head,
            f"Half-lives at depth {depth}",
            subtitle="after how many tokens like this one a head's state would have halved",
        )

    return Panel(draw, depth=slider("depth", len(half_life), "which layer"), head=slider("head", half_life.shape[-1], "which SSM head"))


def switch_panel(model: Zamba, ids: Tensor, tokens: Sequence[str] | None = None) -> Panel:
    """The change of each token's loss when an invocation, its LoRA or its view of the embeddings is switched off."""
    tokens, c = labels(model, ids, tokens), with_invocations(model)

    @cache
    def effect(part: str, where: int | None) -> lens.Effect:
        return lens.effect(model, ids, lens.zero(part, where), controls=0)

    def draw(part: str, where: int | str):
        found = effect(part, None if where == EVERY else where)
        change = torch.cat([torch.full((1,), torch.nan), found.change[0]])
        return viz.token_effect(
            change,
            tokens,
            found.name,
            "change of loss (nats)",
            subtitle=(
                f"mean loss {found.whole.mean():.3f} -> {found.changed.mean():.3f} nats a token; "
                "red: the token got harder to predict, blue: easier"
            ),
        )

    places = [("every invocation", EVERY)] + [
        (f"invocation {k}: block {block_name(block)}, depth {depth}", k)
        for k, (block, depth) in enumerate(zip(c.blocks_by_invocation, c.hybrid_layers))
    ]
    return Panel(
        draw,
        part=choice("switch off", [(part, part) for part in lens.SWITCHED if part in lens.parts(c)], "which part"),
        where=choice("at", places, "where"),
    )
