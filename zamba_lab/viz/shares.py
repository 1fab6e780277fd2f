"""Parts of a whole, stacked: one bar for each row, its parts side by side. Parts may be negative."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from zamba_lab.viz import theme
from zamba_lab.viz.arrays import array, must_match


def stacked_shares(
    shares,
    rows: Sequence[str],
    parts: Sequence[str],
    title: str,
    row_label: str,
    subtitle: str = "",
    share_label: str = "share of the whole",
) -> go.Figure:
    """Horizontal bars, the first row on top; what is below 0 goes to the left of the line.

    Args:
        shares: (part, row); the parts of a row sum to 1.
        rows, parts: one label each.

    Raises ValueError if the labels do not fit.
    """
    shares = array(shares, "shares", 2)
    must_match("parts", parts, shares.shape[0])
    must_match("rows", rows, shares.shape[1])
    fig = go.Figure()
    for i, (part, values) in enumerate(zip(parts, shares)):
        fig.add_trace(
            go.Bar(
                x=values,
                y=list(range(len(rows))),
                orientation="h",
                name=part,
                customdata=list(rows),
                width=0.62,
                marker=dict(color=theme.SERIES[i % len(theme.SERIES)], line=dict(color=theme.PAPER, width=1)),
                hovertemplate=f"{row_label} %{{customdata}}<br>{part} <b>%{{x:.3f}}</b><extra></extra>",
            )
        )
    low, high = np.minimum(shares, 0).sum(0).min(initial=0), np.maximum(shares, 0).sum(0).max(initial=0)
    fig.update_xaxes(
        title_text=share_label,
        range=[low - 0.02, max(high, 1) + 0.02],
        zeroline=True,
        zerolinecolor=theme.QUIET,
        showgrid=True,
        gridcolor=theme.RULE,
    )
    fig.update_yaxes(
        title_text=row_label,
        tickmode="array",
        tickvals=list(range(len(rows))),
        ticktext=list(rows),
        autorange="reversed",
        showline=False,
        ticks="",
    )
    theme.titled(fig, title, subtitle, height=200 + 40 * len(rows))
    return fig.update_layout(
        barmode="relative",
        showlegend=True,
        margin_t=112,
        legend=dict(orientation="h", x=0, xanchor="left", y=1, yanchor="bottom", traceorder="normal", font=dict(size=12)),
    )
