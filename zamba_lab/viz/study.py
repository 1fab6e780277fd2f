"""Figures of an ablation study: effects with their intervals, learning curves with their seeds, one thing against another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from zamba_lab.viz import theme
from zamba_lab.viz.arrays import array, must_match

LABEL = (0.13, 0.07)  # of a figure's width and height: what a name takes
# by the first words of a verdict
COLORS = {
    "no verdict": theme.QUIET,
    "alike": theme.SERIES[4],
    "equivalent": theme.SERIES[4],
    "more": theme.DIVERGING[-1][1],
    "less": theme.DIVERGING[0][1],
}


def intervals(
    means,
    lows,
    highs,
    names: Sequence[str],
    verdicts: Sequence[str],
    title: str,
    value_label: str,
    margin: float | None = None,
    subtitle: str = "",
) -> go.Figure:
    """A row for each arm: its mean difference and interval; what has a verdict in colour, what has none in grey.

    Args:
        means, lows, highs: (row,). names, verdicts: one for each row, the first on top.
        margin: differences within +-margin, which do not matter, are shaded; None: no band.

    Raises ValueError if the lengths do not fit.
    """
    means, lows, highs = (array(values, name, 1) for values, name in ((means, "means"), (lows, "lows"), (highs, "highs")))
    for name, values in (("lows", lows), ("highs", highs), ("names", names), ("verdicts", verdicts)):
        must_match(name, values, len(means))
    rows = np.arange(len(means))
    colors = [next(color for word, color in COLORS.items() if said.startswith(word)) for said in verdicts]
    fig = go.Figure()
    for color in dict.fromkeys(colors):
        at = np.array([one == color for one in colors])
        fig.add_trace(
            go.Scatter(
                x=means[at],
                y=rows[at],
                mode="markers",
                marker=dict(color=color, size=9),
                error_x=dict(
                    type="data", symmetric=False, array=(highs - means)[at], arrayminus=(means - lows)[at], color=color, thickness=1.8
                ),
                text=[
                    f"{names[k]}<br><b>{means[k]:+.4f}</b>, interval {lows[k]:+.4f} to {highs[k]:+.4f}<br>{verdicts[k]}" for k in rows[at]
                ],
                hovertemplate="%{text}<extra></extra>",
            )
        )
    if margin is not None:
        fig.add_vrect(x0=-margin, x1=margin, fillcolor=theme.RULE, opacity=0.6, line_width=0, layer="below")
    fig.update_xaxes(title_text=value_label, zeroline=True, zerolinecolor=theme.QUIET, showgrid=True, gridcolor=theme.RULE)
    fig.update_yaxes(
        title_text="arm",
        tickmode="array",
        tickvals=rows.tolist(),
        ticktext=list(names),
        range=[len(means) - 0.5, -0.5],
        showline=False,
        ticks="",
        tickfont=dict(size=12.5, color=theme.INK),
    )
    return theme.titled(fig, title, subtitle, height=170 + 30 * len(means))


def learning(
    curves: Mapping[str, tuple], title: str, y_label: str, levels: Mapping[str, float] | None = None, subtitle: str = ""
) -> go.Figure:
    """A line for each arm, the median over seeds, in a band from the least to the greatest seed.

    Of more arms than there are colours only the first has one; the others are grey and named where the pointer is.

    Args:
        curves: arm -> (steps (n,), values (seed, n)); NaN where a seed was not measured any more.
        levels: name -> a dashed line, such as chance.

    Raises ValueError if the shapes do not fit.
    """
    fig, many = go.Figure(), len(curves) > len(theme.SERIES)
    for k, (name, (steps, values)) in enumerate(curves.items()):
        steps, values, grey = array(steps, "steps", 1), array(values, "values", 2), many and k > 0
        color = theme.FAINT if grey else theme.SERIES[k]
        must_match("values", values.T, len(steps))
        seen = ~np.isnan(values).all(0)
        steps, values = steps[seen], values[:, seen]
        low, high, middle = np.nanmin(values, 0), np.nanmax(values, 0), np.nanmedian(values, 0)
        if not grey:
            fig.add_trace(
                go.Scatter(
                    x=np.concatenate([steps, steps[::-1]]),
                    y=np.concatenate([high, low[::-1]]),
                    fill="toself",
                    fillcolor=color,
                    opacity=0.15,
                    line_width=0,
                    hoverinfo="skip",
                    legendgroup=name,
                    showlegend=False,
                )
            )
        fig.add_trace(
            go.Scatter(
                x=steps,
                y=middle,
                mode="lines",
                name=name,
                legendgroup=name,
                showlegend=not grey,
                line=dict(color=color, width=1.3 if grey else 2),
                zorder=0 if grey else 1,
                hovertemplate=f"{name}<br>step %{{x}}: <b>%{{y:.3f}}</b><extra></extra>",
            )
        )
    for name, level in (levels or {}).items():
        fig.add_hline(y=level, line=dict(dash="dash", color=theme.QUIET, width=1), annotation_text=name, annotation_position="bottom right")
    fig.update_xaxes(title_text="step")
    fig.update_yaxes(title_text=y_label, showgrid=True, gridcolor=theme.RULE)
    theme.titled(fig, title, subtitle, height=440)
    return fig.update_layout(showlegend=True)


def trade_off(x, y, names: Sequence[str], title: str, x_label: str, y_label: str, lows=None, highs=None, subtitle: str = "") -> go.Figure:
    """A point for each arm, x on a logarithmic axis. Where points crowd, the first is named, the others where the pointer is.

    Args:
        x: (n,), > 0. y: (n,). lows, highs: (n,) intervals of y, or None. names: one for each point.

    Raises ValueError if the lengths do not fit.
    """
    x, y = array(x, "x", 1), array(y, "y", 1)
    must_match("y", y, len(x))
    must_match("names", names, len(x))
    bars = None
    if lows is not None:
        bars = dict(
            type="data",
            symmetric=False,
            array=array(highs, "highs", 1) - y,
            arrayminus=y - array(lows, "lows", 1),
            color=theme.FAINT,
            thickness=1.5,
        )
    words = "%{customdata}<br>" + x_label + " <b>%{x:,.0f}</b><br>" + y_label + " <b>%{y:.3f}</b><extra></extra>"
    fig = go.Figure(
        go.Scatter(
            x=x,
            y=y,
            mode="markers+text",
            text=apart(x, y, names),
            customdata=list(names),
            textposition="top center",
            textfont=dict(size=11, color=theme.QUIET),
            marker=dict(color=theme.ACCENT, size=9),
            error_y=bars,
            cliponaxis=False,
            hovertemplate=words,
        )
    )
    fig.update_xaxes(title_text=x_label, type="log")
    fig.update_yaxes(title_text=y_label, showgrid=True, gridcolor=theme.RULE)
    return theme.titled(fig, title, subtitle, height=440)


def apart(x: np.ndarray, y: np.ndarray, names: Sequence[str]) -> list[str]:
    """The names that can be read beside each other, "" for the others: x > 0 on a logarithmic axis, y on a plain one."""
    across, up = np.log(x), y
    wide, high = (np.ptp(values) or 1.0 for values in (across, up))
    shown: list[int] = []
    for k in range(len(names)):
        if all(abs(across[k] - across[j]) > LABEL[0] * wide or abs(up[k] - up[j]) > LABEL[1] * high for j in shown):
            shown.append(k)
    return [name if k in shown else "" for k, name in enumerate(names)]
