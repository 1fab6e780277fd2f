"""Curves over a common axis, each named where it ends, with a faint line below for what is too noisy to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from zamba_lab.viz import theme

Curve = tuple[Sequence[float], Sequence[float]]  # x and y
FEW = 20  # points up to which each is marked


def curves(
    lines: Mapping[str, Curve],
    title: str,
    x_label: str,
    y_label: str,
    subtitle: str = "",
    faint: Mapping[str, Curve] | None = None,
    marks: Mapping[str, float] | None = None,
    x_range: tuple[float, float] | None = None,
    height: int = 380,
) -> go.Figure:
    """One line a name; hovering shows all lines at that x.

    Args:
        lines: name -> (x, y), each of one length; one without points is only named in the legend.
        faint: the same, drawn thin and grey, e.g. the loss of every step under its mean.
        marks: name -> x of a dotted vertical line.
        x_range: the ends of the x axis; those of the data if left out.

    Raises ValueError if a curve's x and y differ in length.
    """
    fig = go.Figure()
    for name, (x, y) in (faint or {}).items():
        fig.add_trace(go.Scatter(**_points(name, x, y), mode="lines", line=dict(color=theme.FAINT, width=1), hoverinfo="skip"))
    for i, (name, (x, y)) in enumerate(lines.items()):
        color = theme.SERIES[i % len(theme.SERIES)]
        fig.add_trace(
            go.Scatter(
                **_points(name, x, y),
                mode="lines+markers" if len(x) <= FEW else "lines",
                line=dict(color=color, width=2.2),
                marker=dict(size=6),
                cliponaxis=False,
                hovertemplate="%{y:.4g}",
            )
        )
    for name, x in (marks or {}).items():
        fig.add_vline(
            x,
            line=dict(color=theme.QUIET, width=1, dash="dot"),
            annotation=dict(text=name, yref="paper", y=1, yanchor="top", xanchor="left", font=dict(size=11.5, color=theme.QUIET)),
        )
    fig.update_xaxes(title_text=x_label, range=None if x_range is None else list(x_range))
    fig.update_yaxes(title_text=y_label, showgrid=True, gridcolor=theme.RULE)
    theme.titled(fig, title, subtitle, height=height)
    return fig.update_layout(
        hovermode="x unified",
        showlegend=True,
        margin_t=108,
        legend=dict(orientation="h", x=0, xanchor="left", y=1.01, yanchor="bottom", font=dict(size=12)),
        hoverlabel=dict(bgcolor=theme.PAPER, bordercolor=theme.RULE, font=dict(color=theme.INK)),
    )


def _points(name: str, x: Sequence[float], y: Sequence[float]) -> dict:
    x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"a curve needs as many x as y: {name!r} has {x.shape} and {y.shape}")
    return {"name": name, "x": x, "y": y}
