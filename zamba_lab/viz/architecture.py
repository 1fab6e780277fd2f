"""The depth of a hybrid as a picture: one stream of layers, and the invocations of a few shared blocks."""

from collections.abc import Sequence

import plotly.graph_objects as go

from zamba_lab.config import block_name
from zamba_lab.viz import theme

STREAM, BLOCKS, EMBEDDING = 0.0, 1.2, 2.2  # heights of the three rows
HALF = 0.32  # half a box, in layers
START = -0.95  # where the embeddings enter
LAYER = "#d9e1e8"


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
    line(fig, (START, STREAM), (n_layers - 0.1, STREAM), arrow=True, text="residual<br>stream")
    boxes = [(depth, STREAM, LAYER, str(depth), f"depth {depth}: a layer, which adds to the stream") for depth in range(n_layers)]
    if concat and hybrid_layers:
        line(fig, (START, STREAM), (START, EMBEDDING))
        words = "token embeddings x0, handed to every invocation"
        line(fig, (START, EMBEDDING), (hybrid_layers[-1] + 0.14, EMBEDDING), text=words)
    for k, (depth, block) in enumerate(zip(hybrid_layers, blocks)):
        line(fig, (depth - 0.5, STREAM), (depth - 0.5, BLOCKS))
        line(fig, (depth - 0.5, BLOCKS), (depth - HALF, BLOCKS), arrow=True)
        line(fig, (depth, BLOCKS - HALF), (depth, STREAM + HALF), arrow=True)
        if concat:
            line(fig, (depth + 0.14, EMBEDDING), (depth + 0.14, BLOCKS + HALF), arrow=True)
        name = block_name(block)
        words = f"invocation {k} of block {name}: through a link of its own into the layer at depth {depth}"
        boxes.append((depth, BLOCKS, theme.SERIES[block % len(theme.SERIES)], name, words))
    add_boxes(fig, boxes)
    fig.update_xaxes(title_text="depth", range=[START - 0.1, n_layers + 0.1], showticklabels=False, **theme.BARE)
    fig.update_yaxes(range=[STREAM - 0.75, EMBEDDING + 0.45], visible=False)
    return theme.titled(fig, title, subtitle, 350, margin_l=18, margin_b=36)


def add_boxes(fig: go.Figure, boxes: Sequence[tuple[float, float, str, str, str]]) -> None:
    """Filled boxes (x, y, colour, label, hover text), and an invisible point in the middle of each that carries the hover text."""
    for x, y, color, text, _ in boxes:
        label = dict(text=f"<b>{text}</b>", font=dict(color=theme.DARK if color == LAYER else theme.LIGHT, size=13))
        fig.add_shape(type="rect", x0=x - HALF, x1=x + HALF, y0=y - HALF, y1=y + HALF, fillcolor=color, line_width=0, label=label)
    x, y, _, _, words = zip(*boxes) if boxes else [()] * 5
    fig.add_trace(go.Scatter(x=x, y=y, mode="markers", marker=dict(size=30, opacity=0), hovertext=words, hoverinfo="text"))


def line(fig: go.Figure, start: tuple[float, float], end: tuple[float, float], arrow: bool = False, text: str = "") -> None:
    """A straight line under the boxes, with an arrow head at its end and small words above its beginning if asked."""
    (x0, y0), (x1, y1) = start, end
    fig.add_shape(type="line", x0=x0, y0=y0, x1=x1, y1=y1, line=dict(color=theme.QUIET, width=1.3), layer="below")
    if arrow:  # an annotation's, on the last bit of the line: a whole annotation would cover the boxes
        back = dict(ax=x1 - 0.2 * (x1 > x0), ay=y1 + 0.2 * (y0 > y1), axref="x", ayref="y")
        fig.add_annotation(x=x1, y=y1, text="", arrowcolor=theme.QUIET, arrowwidth=1.3, arrowhead=2, **back)
    if text:
        look = dict(showarrow=False, xanchor="left", yanchor="bottom", align="left", xshift=4, yshift=3, font_size=11.5)
        fig.add_annotation(x=x0, y=y0, text=text, **look)
