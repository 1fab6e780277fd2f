"""The depth of a hybrid as a picture: one stream of layers, and a few blocks that return."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

import plotly.graph_objects as go

from zamba_lab.viz import theme

STREAM, BLOCKS, EMBEDDING = 0.0, 1.2, 2.2  # heights of the three rows
HALF = 0.32  # half a box, in layers
START = -0.95  # where the embeddings enter


def depth_diagram(
    n_layers: int, hybrid_layers: Sequence[int], blocks: Sequence[int], title: str, subtitle: str = "", concat: bool = True
) -> go.Figure:
    """Depth from left to right: the layers on their stream, each invocation above the layer it feeds.

    Args:
        n_layers: how many layers.
        hybrid_layers: the depths with an invocation before their mixer.
        blocks: the shared block of each invocation; invocations of one block have one colour.
        concat: whether the embeddings are handed to every invocation.

    Raises ValueError if blocks and hybrid_layers differ in length.
    """
    if len(blocks) != len(hybrid_layers):
        raise ValueError(f"blocks names a block for each hybrid layer: got {len(blocks)} and {len(hybrid_layers)}")
    fig = go.Figure()
    line(fig, (START, STREAM), (n_layers - 0.1, STREAM), arrow=True)
    label(fig, START, STREAM, "residual<br>stream")
    for depth in range(n_layers):
        box(fig, depth, STREAM, "#d9e1e8", str(depth), f"depth {depth}: a layer, which adds to the stream")
    if concat and hybrid_layers:
        line(fig, (START, STREAM), (START, EMBEDDING))
        line(fig, (START, EMBEDDING), (hybrid_layers[-1] + 0.14, EMBEDDING))
        label(fig, START, EMBEDDING, "token embeddings x0, handed to every invocation")
    for k, (depth, block) in enumerate(zip(hybrid_layers, blocks)):
        line(fig, (depth - 0.5, STREAM), (depth - 0.5, BLOCKS))
        line(fig, (depth - 0.5, BLOCKS), (depth - HALF, BLOCKS), arrow=True)
        line(fig, (depth, BLOCKS - HALF), (depth, STREAM + HALF), arrow=True)
        if concat:
            line(fig, (depth + 0.14, EMBEDDING), (depth + 0.14, BLOCKS + HALF), arrow=True)
        words = f"invocation {k}: block {block_name(block)}, through its own link into depth {depth}"
        box(fig, depth, BLOCKS, theme.SERIES[block % len(theme.SERIES)], block_name(block), words, ink="#ffffff")
    fig.update_xaxes(title_text="depth", range=[START - 0.1, n_layers + 0.1], showline=False, showticklabels=False, ticks="")
    fig.update_yaxes(range=[STREAM - 0.75, EMBEDDING + 0.45], visible=False)
    theme.titled(fig, title, subtitle, height=350)
    return fig.update_layout(margin=dict(l=18, b=36))


def block_name(block: int) -> str:
    """A, B, ...; beyond the alphabet its number."""
    return ascii_uppercase[block] if block < len(ascii_uppercase) else str(block)


def box(fig: go.Figure, x: float, y: float, color: str, text: str, hover: str, ink: str = theme.INK) -> None:
    """A filled box with a label, and an invisible point in its middle that carries the hover text."""
    fig.add_shape(type="rect", x0=x - HALF, x1=x + HALF, y0=y - HALF, y1=y + HALF, fillcolor=color, line_width=0)
    fig.add_trace(go.Scatter(x=[x], y=[y], mode="markers", marker=dict(size=30, opacity=0), hovertext=[hover], hoverinfo="text"))
    fig.add_annotation(x=x, y=y, text=f"<b>{text}</b>", showarrow=False, font=dict(color=ink, size=13))


def line(fig: go.Figure, start: tuple[float, float], end: tuple[float, float], arrow: bool = False) -> None:
    """A straight line, with an arrow head at its end if asked. Boxes drawn later cover it."""
    stroke = dict(color=theme.QUIET, width=1.3)
    fig.add_shape(type="line", x0=start[0], y0=start[1], x1=end[0], y1=end[1], line=stroke)
    if arrow:
        dx, dy = (end[i] - start[i] for i in (0, 1))
        symbol = ("triangle-right" if dx > 0 else "triangle-left") if dx else ("triangle-up" if dy > 0 else "triangle-down")
        fig.add_trace(
            go.Scatter(
                x=[end[0] - 0.04 * (dx > 0)],
                y=[end[1] + 0.06 * (dy < 0)],
                mode="markers",
                hoverinfo="skip",
                marker=dict(symbol=symbol, size=9, color=theme.QUIET),
            )
        )


def label(fig: go.Figure, x: float, y: float, text: str) -> None:
    """Small words above the beginning of a line."""
    fig.add_annotation(
        x=x,
        y=y,
        text=text,
        showarrow=False,
        xanchor="left",
        yanchor="bottom",
        align="left",
        xshift=4,
        yshift=3,
        font=dict(size=11.5, color=theme.QUIET),
    )
