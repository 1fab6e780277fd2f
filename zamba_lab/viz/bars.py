"""A few named numbers, signed: the longest matters most, the order is the caller's."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from zamba_lab.viz import theme
from zamba_lab.viz.arrays import array, must_match


def bars(values, names: Sequence[str], title: str, value_label: str, name_label: str, subtitle: str = "") -> go.Figure:
    """Horizontal bars, the first on top, red above 0 and blue below, each with its number.

    Args:
        values: one each. names: what each is of.
        value_label, name_label: the titles of the two axes, the first with its unit.

    Raises ValueError if there is not one name for each value.
    """
    values = array(values, "values", 1)
    must_match("names", names, len(values))
    colors = [theme.DIVERGING[-1][1] if value > 0 else theme.DIVERGING[0][1] for value in values]
    fig = go.Figure(
        go.Bar(
            x=values,
            y=list(range(len(names))),
            orientation="h",
            marker=dict(color=colors, line_width=0),
            width=0.66,
            text=[f"{value:+.3g}" for value in values],
            textposition="outside",
            cliponaxis=False,
            customdata=list(names),
            textfont=dict(size=12, color=theme.INK),
            hovertemplate="%{customdata}<br>" + value_label + " <b>%{x:+.4f}</b><extra></extra>",
        )
    )
    left, right = values.min(initial=0), values.max(initial=0)
    room = 0.12 * (right - left or 1)  # for the numbers at the bars' ends
    fig.update_xaxes(
        range=[left - room * (left < 0), right + room],
        title_text=value_label,
        zeroline=True,
        zerolinecolor=theme.QUIET,
        showgrid=True,
        gridcolor=theme.RULE,
    )
    fig.update_yaxes(
        title_text=name_label,
        tickmode="array",
        tickvals=list(range(len(names))),
        ticktext=list(names),
        autorange="reversed",
        showline=False,
        ticks="",
        tickfont=dict(size=12.5, color=theme.INK),
    )
    theme.titled(fig, title, subtitle, height=150 + 27 * len(names))
    return fig.update_layout(margin_r=64)
