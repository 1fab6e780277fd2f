"""Two measurements of the same things against each other: on the diagonal they agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from zamba_lab.viz import theme
from zamba_lab.viz.arrays import array, must_match

# the lightest colour of the scale would be lost on white
VISIBLE = [[i / 4, color] for i, (_, color) in enumerate(theme.SEQUENTIAL[1:])]


def agreement(
    x, y, names: Sequence[str], groups: Sequence, title: str, x_label: str, y_label: str, group_label: str, subtitle: str = ""
) -> go.Figure:
    """A point for each thing, both axes logarithmic and of one scale, with the line where both are equal.

    Args:
        x, y: (point,), > 0.
        names: what each point is, for the hover text.
        groups: a number for each, as its colour: little is light.
        x_label, y_label: with their units.

    Raises ValueError if these do not have one entry for each point.
    """
    x, y = array(x, "x", 1), array(y, "y", 1)
    for name, entries in (("y", y), ("names", names), ("groups", groups)):
        must_match(name, entries, len(x))
    ends = [float(np.nanmin([x, y])) / 1.3, float(np.nanmax([x, y])) * 1.3]
    fig = go.Figure(go.Scatter(x=ends, y=ends, mode="lines", line=dict(color=theme.QUIET, width=1.2, dash="dot"), hoverinfo="skip"))
    fig.add_trace(
        go.Scatter(
            x=x,
            y=y,
            mode="markers",
            customdata=list(names),
            marker=dict(
                size=8,
                color=list(groups),
                colorscale=VISIBLE,
                colorbar=theme.color_bar(group_label),
                line=dict(color=theme.PAPER, width=0.8),
            ),
            hovertemplate=f"%{{customdata}}<br>{x_label} <b>%{{x:.3g}}</b><br>{y_label} <b>%{{y:.3g}}</b><extra></extra>",
        )
    )
    axis = dict(type="log", dtick=1, showgrid=True, gridcolor=theme.RULE, range=[float(np.log10(end)) for end in ends])
    fig.update_xaxes(title_text=x_label, **axis)
    fig.update_yaxes(title_text=y_label, **axis)
    return theme.titled(fig, title, subtitle, height=470)
