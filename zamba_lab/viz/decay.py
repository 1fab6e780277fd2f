"""How long heads remember: the spread over a text, and one head's course through it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from zamba_lab.viz import theme
from zamba_lab.viz.arrays import array, must_match
from zamba_lab.viz.tokens import places, token_axis

SPREAD = (5, 25, 50, 75, 95)  # percentiles


def half_life_ranges(half_lives, tokens: Sequence[str], head: int, title: str, subtitle: str = "") -> go.Figure:
    """Left: each head's half-life over the text, median, half and nine tenths of it. Right: one head, token by token.

    Args:
        half_lives: (token, head), in tokens, > 0; drawn on a logarithmic axis.
        tokens: one label for each position.
        head: the head on the right, 0 <= head < heads; marked on the left.

    Raises ValueError if an argument does not fit.
    """
    half_lives = array(half_lives, "half_lives", 2)
    must_match("tokens", tokens, half_lives.shape[0])
    if not 0 <= head < half_lives.shape[1]:
        raise ValueError(f"head must be in 0..{half_lives.shape[1] - 1}: got {head}")
    fig = make_subplots(
        1,
        2,
        column_widths=[0.34, 0.66],
        horizontal_spacing=0.09,
        shared_yaxes=True,
        subplot_titles=["all heads: spread over the text", f"head {head}, token by token"],
    )
    add_spreads(fig, half_lives, head)
    fig.add_trace(
        go.Scatter(
            x=places(tokens),
            y=half_lives[:, head],
            mode="lines+markers",
            line=dict(color=theme.ACCENT, width=1.6),
            marker=dict(size=5, color=theme.ACCENT),
            hovertemplate="%{x}<br>half-life <b>%{y:.3g}</b> tokens<extra></extra>",
        ),
        row=1,
        col=2,
    )
    fig.update_xaxes(title_text="head", dtick=max(1, half_lives.shape[1] // 16), row=1, col=1)
    fig.update_xaxes(title_text="token", tickangle=-90, **token_axis(tokens), row=1, col=2)
    fig.update_yaxes(type="log", showgrid=True, gridcolor=theme.RULE, range=log_range(half_lives), dtick=1)
    fig.update_yaxes(title_text="half-life of the state (tokens)", row=1, col=1)
    fig.update_annotations(font=dict(size=13, color=theme.INK), yshift=4)
    theme.titled(fig, title, subtitle, height=430)
    return fig.update_layout(margin_t=110)


def add_spreads(fig: go.Figure, half_lives: np.ndarray, head: int) -> None:
    """A thin bar, a thick bar and a dot for each head: percentiles on a logarithmic axis need no density estimate."""
    low, lower, middle, upper, high = np.percentile(half_lives, SPREAD, axis=0)
    heads = np.arange(half_lives.shape[1])
    colors = [theme.ACCENT if h == head else theme.FAINT for h in heads]
    words = [
        f"head {h}<br>median <b>{m:.3g}</b> tokens<br>half of the text {a:.3g} to {b:.3g}<br>nine tenths {c:.3g} to {d:.3g}"
        for h, m, a, b, c, d in zip(heads, middle, lower, upper, low, high)
    ]
    for width, bottom, top in ((0.12, low, high), (0.5, lower, upper)):
        fig.add_trace(
            go.Bar(
                x=heads,
                base=bottom,
                y=top - bottom,
                width=width,
                marker=dict(color=colors, line_width=0),
                text=words,
                textposition="none",
                hovertemplate="%{text}<extra></extra>",
            ),
            row=1,
            col=1,
        )
    fig.add_trace(
        go.Scatter(
            x=heads,
            y=middle,
            mode="markers",
            hoverinfo="skip",
            marker=dict(size=8, color=theme.PAPER, line=dict(color=theme.INK, width=1.6)),
        ),
        row=1,
        col=1,
    )
    fig.update_layout(barmode="overlay")


def log_range(values: np.ndarray) -> list[float]:
    """The axis's ends as powers of ten, a little beyond the values."""
    return [float(np.log10(values.min())) - 0.15, float(np.log10(values.max())) + 0.15]
