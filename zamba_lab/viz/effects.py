"""Effects with their intervals, two to a row: what was done above what as large a random change did, or two texts' answers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from zamba_lab.viz import theme
from zamba_lab.viz.arrays import array, must_match

CONTROLLED = "the intervention", "random changes of its size"
SHIFTS, SYMBOLS = (-0.14, 0.14), ("circle", "diamond")


def effects(
    means,
    intervals,
    names: Sequence[str],
    title: str,
    value_label: str,
    subtitle: str = "",
    series: tuple[str, str] = CONTROLLED,
    row_label: str = "intervention",
) -> go.Figure:
    """Two means with their intervals for each row, one below the other.

    Args:
        means: (row, 2); NaN where there is none.
        intervals: (row, 2, 2) low and high of each; NaN where nothing can be said, and no whisker is drawn.
        names: one for each row, the first on top.
        value_label: what the number is, with its unit.
        series: what the two of a row are; the controls are grey.

    Raises ValueError if the shapes or names do not fit.
    """
    means, intervals = array(means, "means", 2), array(intervals, "intervals", 3)
    if means.shape[1:] != (2,) or intervals.shape != (*means.shape, 2):
        raise ValueError(f"means must be (row, 2) and intervals (row, 2, 2): got {means.shape} and {intervals.shape}")
    must_match("names", names, len(means))
    fig, rows = go.Figure(), np.arange(len(means))
    colors = theme.SERIES[0], theme.FAINT if series == CONTROLLED else theme.SERIES[1]
    for i, (label, color, shift, symbol) in enumerate(zip(series, colors, SHIFTS, SYMBOLS)):
        low, high = intervals[:, i, 0], intervals[:, i, 1]
        words = [
            f"{name}: {label}<br><b>{mean:+.4f}</b>" + ("" if np.isnan(a) else f", interval {a:+.4f} to {b:+.4f}")
            for name, mean, a, b in zip(names, means[:, i], low, high)
        ]
        fig.add_trace(
            go.Scatter(
                x=means[:, i],
                y=rows + shift,
                mode="markers",
                name=label,
                marker=dict(color=color, size=9, symbol=symbol),
                error_x=dict(
                    type="data",
                    symmetric=False,
                    array=np.nan_to_num(high - means[:, i]),
                    arrayminus=np.nan_to_num(means[:, i] - low),
                    color=color,
                    thickness=1.8,
                    width=4,
                ),
                text=words,
                hovertemplate="%{text}<extra></extra>",
            )
        )
    fig.update_xaxes(title_text=value_label, zeroline=True, zerolinecolor=theme.QUIET, showgrid=True, gridcolor=theme.RULE)
    fig.update_yaxes(
        title_text=row_label,
        tickmode="array",
        tickvals=rows.tolist(),
        ticktext=list(names),
        range=[len(means) - 0.5, -0.5],
        showline=False,
        ticks="",
        tickfont=dict(size=12.5, color=theme.INK),
    )
    theme.titled(fig, title, subtitle, height=190 + 40 * len(names))
    return fig.update_layout(showlegend=True, legend=dict(orientation="h", x=0, y=-70 / (40 * len(names) + 30), yanchor="top"))
