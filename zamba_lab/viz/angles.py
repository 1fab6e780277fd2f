"""How much subspaces overlap, angle by angle, held against what random ones do."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from zamba_lab.viz import theme
from zamba_lab.viz.arrays import array, must_match

BAND = (2.5, 97.5)  # percentiles


def principal_angles(overlaps, names: Sequence[str], chance, title: str, subtitle: str = "") -> go.Figure:
    """cos^2 of the principal angles of each pair, the closest first, over the band of random pairs.

    Args:
        overlaps: (pair, angle), 0 to 1, falling.
        names: one for each pair.
        chance: (draw, angle): the same for pairs of random subspaces of the same size.

    Raises ValueError if names or angles do not fit.
    """
    overlaps, chance = array(overlaps, "overlaps", 2), array(chance, "chance", 2)
    must_match("names", names, overlaps.shape[0])
    if chance.shape[1] != overlaps.shape[1]:
        raise ValueError(f"chance must have the angles of overlaps: got {chance.shape[1]} and {overlaps.shape[1]}")
    places = np.arange(1, overlaps.shape[1] + 1)
    low, high = np.percentile(chance, BAND, axis=0)
    fig = go.Figure()
    fig.add_trace(
        go.Scatter(
            x=[*places, *places[::-1]],
            y=[*high, *low[::-1]],
            fill="toself",
            fillcolor=theme.RULE,
            line_width=0,
            mode="lines",
            name="95 % of random pairs",
            hoverinfo="skip",
        )
    )
    fig.add_trace(
        go.Scatter(
            x=places,
            y=chance.mean(0),
            mode="lines",
            line=dict(color=theme.QUIET, width=1.2, dash="dot"),
            name="random pairs, mean",
            hovertemplate="angle %{x}<br>random pairs, mean <b>%{y:.3f}</b><extra></extra>",
        )
    )
    for i, (name, values) in enumerate(zip(names, overlaps)):
        fig.add_trace(
            go.Scatter(
                x=places,
                y=values,
                mode="lines+markers",
                name=name,
                marker_size=6,
                line=dict(color=theme.SERIES[i % len(theme.SERIES)], width=1.8, dash=["solid", "dash"][i // len(theme.SERIES) % 2]),
                hovertemplate=f"{name}<br>angle %{{x}}<br>cos² <b>%{{y:.3f}}</b><extra></extra>",
            )
        )
    top = 1.08 * max(overlaps.max(initial=0), high.max())
    fig.update_xaxes(title_text="principal angle, the closest first", dtick=max(1, len(places) // 16))
    fig.update_yaxes(title_text="overlap, cos² of the angle", range=[-0.02, top], showgrid=True, gridcolor=theme.RULE)
    theme.titled(fig, title, subtitle, height=420)
    return fig.update_layout(showlegend=True, legend=dict(font=dict(size=12)))
