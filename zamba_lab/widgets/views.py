"""The panels of the notebooks on states and on attention: which control picks what. Numbers are `lens`'s, pictures `viz`'s."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from torch import Tensor

from zamba_lab import lens, viz
from zamba_lab.model import Zamba
from zamba_lab.viz.architecture import block_name
from zamba_lab.widgets.panel import Panel, choice, slider
from zamba_lab.widgets.panels import labels, with_invocations

SOURCES = (
    ("stream asks, stream is found", (0, 0)),
    ("stream asks, embedding is found", (0, 1)),
    ("embedding asks, stream is found", (1, 0)),
    ("embedding asks, embedding is found", (1, 1)),
)
POINTS = [("the block's output", "mlp_out"), ("what its attention gives", "attn_out"), ("what leaves its link", "link_out")]

NAMES = {point: name for name, point in POINTS}


def dimensions_panel(model: Zamba, ids: Tensor, tokens: Sequence[str] | None = None) -> Panel:
    """In how many directions one head's state is filled after every token, at every depth."""
    tokens, found = labels(model, ids, tokens), lens.state_dimensions(model, ids)[:, 0]  # (i, l, h)
    most = min(model.config.headdim, model.config.d_state)

    def draw(head: int):
        return viz.heatmap(
            found[:, :, head],
            tokens,
            [str(i) for i in range(len(found))],
            f"Directions in the state, head {head}",
            value_label="participation ratio",
            top=float(found.max()),
            subtitle=f"how many directions the state is spread over; there is room for {most}",
        )

    return Panel(draw, head=slider("head", found.shape[-1], "which SSM head of every layer"))


def contents_panel(model: Zamba, ids: Tensor, tokens: Sequence[str] | None = None) -> Panel:
    """What one head's state after one token is made of, token by token."""
    tokens, c = labels(model, ids, tokens), model.config
    find = cache(lambda depth, at: lens.contents(model, ids, depth, at))

    def draw(depth: int, head: int, at: int):
        share = find(depth, at).share[0, head]
        return viz.token_effect(
            share,
            tokens[: at + 1],
            f"In the state of head {head}, depth {depth}, after token {at}",
            "share of the state",
            subtitle="what is left of what each token wrote; shares sum to 1",
        )

    last = len(tokens) - 1
    panel = Panel(
        draw,
        depth=slider("depth", c.n_layers, "which layer"),
        head=slider("head", c.ssm_heads, "which SSM head"),
        at=slider("after token", len(tokens), "the token after which to look"),
    )
    panel.controls["at"].value = last
    return panel


def mixer_panel(model: Zamba, ids: Tensor, tokens: Sequence[str] | None = None) -> Panel:
    """One layer's mixer as attention: what each token adds to each token's output, by one head and by all."""
    tokens, c = labels(model, ids, tokens), model.config
    find = cache(lambda depth: lens.mixer_matrix(model, ids, depth))
    shares = cache(lambda depth: find(depth).shares()[0])

    def draw(depth: int, head: int):
        every = shares(depth)
        return viz.attention_grid(
            [every[head].tolist(), every.sum(0).tolist()],
            tokens,
            [f"head {head}", "all heads"],
            f"The mixer of depth {depth} as attention",
            value_label="share of the output",
            signed=True,
            subtitle="convolution, skip and gate included; the shares of a row sum to 1 over all heads. "
            f"The factors rebuild the output to {find(depth).error:.0e}",
        )

    return Panel(draw, depth=slider("depth", c.n_layers, "which layer"), head=slider("head", c.ssm_heads, "which SSM head"))


def drift_panel(model: Zamba, ids: Tensor, tokens: Sequence[str] | None = None) -> Panel:
    """One shared block with the input of each of its uses and the adapters of each of its uses."""
    labels(model, ids, tokens)
    c = with_invocations(model)
    find = cache(lambda block, point: lens.drift(model, ids, block, point))

    def draw(block: int, point: str):
        found = find(block, point)
        whole = float(found.total.sum()) or 1.0
        inputs, adapters, both = (100 * float(part.sum()) / whole for part in (found.inputs, found.adapters, found.both))
        uses = [f"depth {depth}" for depth in found.depths]
        return viz.table(
            found.distance[..., 0],
            uses,
            uses,
            f"Block {block_name(block)} with other adapters: {NAMES[point]}",
            "input of",
            "adapters of",
            "relative change",
            subtitle=f"what differs between all cells: {inputs:.0f} % by the input, {adapters:.0f} % by the "
            f"adapters{' and the link' if point == 'link_out' else ''}, {both:.0f} % by both together",
        )

    blocks = [(block_name(block), block) for block in range(c.n_shared_blocks)]
    return Panel(
        draw, block=choice("shared block", blocks, "which set of shared weights"), point=choice("look at", POINTS, "where in the block")
    )


def xray_panel(model: Zamba, ids: Tensor, tokens: Sequence[str] | None = None) -> Panel:
    """One head's attention scores in four parts: who asks and who is found by stream or by embedding."""
    tokens, c = labels(model, ids, tokens), with_invocations(model)
    find = cache(lambda invocation: lens.score_parts(model, ids, invocation))
    find(0)  # refuses a config without

    def draw(invocation: int, head: int):
        found = find(invocation)
        maps = [found.parts[q, k, 0, head].tolist() for _, (q, k) in SOURCES]
        return viz.attention_grid(
            maps,
            tokens,
            [name for name, _ in SOURCES],
            f"Scores of head {head}, depth {found.depth}",
            value_label="part of the score",
            signed=True,
            subtitle="before the softmax; the four sum to the score, adapters and rotation included",
        )

    return Panel(
        draw,
        invocation=slider("invocation", c.n_invocations, "which use of a shared block"),
        head=slider("head", c.attn_heads, "which attention head"),
    )
