"""Attention maps side by side, on one colour scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from zamba_lab.viz import theme
from zamba_lab.viz.arrays import array, must_match
from zamba_lab.viz.tokens import places, token_axis

MAX_ACROSS = 3
SIDE = {1: 430, 2: 430, 3: 310}  # pixels of one map, by how many stand side by side
LABELS = {1: 64, 2: 36, 3: 24}  # tokens that can be read along it


def attention_grid(
    maps,
    tokens: Sequence[str],
    names: Sequence[str],
    title: str,
    subtitle: str = "",
    value_label: str = "attention weight",
    signed: bool = False,
) -> go.Figure:
    """One square map for each entry: which token (row) reads which (column). What lies ahead is left blank.

    Args:
        maps: (map, l, s), l = s = the number of tokens; probabilities, or other weights.
        tokens: one label for each position.
        names: one heading for each map.
        value_label: what a weight is. signed: colours diverge from 0.

    Raises ValueError if the labels do not fit the maps.
    """
    maps = array(maps, "maps", 3)
    must_match("names", names, maps.shape[0])
    must_match("tokens", tokens, maps.shape[1])
    must_match("tokens", tokens, maps.shape[2])
    down = -(-len(names) // MAX_ACROSS)
    across = -(-len(names) // down)  # four maps stand two by two
    fig = make_subplots(
        down,
        across,
        subplot_titles=list(names),
        horizontal_spacing=0.16 / across,
        vertical_spacing=0.28 / down,
        shared_xaxes="all",
        shared_yaxes="all",
    )
    ahead = np.triu(np.ones(maps.shape[1:], dtype=bool), k=1)
    words = places(tokens)
    for i, probs in enumerate(maps):
        fig.add_trace(
            go.Heatmap(
                z=np.where(ahead, np.nan, probs).astype(np.float32),
                x=words,
                y=words,
                hoverongaps=False,
                hovertemplate="%{y}<br>reads %{x}<br>" + value_label + " <b>%{z:.3f}</b><extra></extra>",
                coloraxis="coloraxis",
            ),
            row=i // across + 1,
            col=i % across + 1,
        )
    axis = token_axis(tokens, size=9, most=LABELS[across])
    fig.update_xaxes(tickangle=-90, showticklabels=True, constrain="domain", **axis)
    fig.update_yaxes(autorange="reversed", scaleanchor="x", constrain="domain", **axis)
    fig.update_xaxes(title_text="token read", row=down)
    fig.update_yaxes(title_text="token that reads", col=1)
    fig.update_annotations(font=dict(size=13, color=theme.INK), yshift=4)
    top = float(np.nanmax(np.abs(maps)))
    fig.update_layout(
        coloraxis=dict(
            colorscale=theme.DIVERGING if signed else theme.SEQUENTIAL,
            cmin=-top if signed else 0,
            cmax=top,
            colorbar=theme.color_bar(value_label),
        )
    )
    theme.titled(fig, title, subtitle, height=170 + SIDE[across] * down)
    return fig.update_layout(margin_t=110)
