"""One point for each of many things: one number against another."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from zamba_lab.viz import theme
from zamba_lab.viz.labels import labelled, not_drawn, short, wrapped

APART = (0.13, 0.07)  # of a figure's width and height: what a name needs
# Points are as dark at one end as at the other, and seen on any page.
VISIBLE = [[0.0, "#d9962f"], [0.5, "#4f9e8e"], [1.0, "#3a5fa8"]]


def agreement(
    x, y, names: Sequence[str], groups: Sequence, title: str, x_label: str, y_label: str, group_label: str, subtitle: str = ""
) -> go.Figure:
    """A point for each thing, both axes logarithmic and of one scale, with the line where both are equal.

    Args:
        x, y: (point,), > 0.
        names: what each point is, for the hover text.
        groups: a number for each, as its colour.
        x_label, y_label: with their units.

    Raises ValueError if these do not have one entry for each point.
    """
    x, y, groups = (labelled(values, name, ("names", names)) for values, name in ((x, "x"), (y, "y"), (groups, "groups")))
    drawn = np.isfinite([x, y]).all(0) & (x > 0) & (y > 0)
    low, high = theme.log_range(np.where(drawn, [x, y], np.nan))
    fig = go.Figure()
    line = dict(color=theme.QUIET, width=1.2, dash="dot")
    fig.add_trace(go.Scatter(x=[10**low, 10**high], y=[10**low, 10**high], mode="lines", line=line, name="equal", hoverinfo="skip"))
    color = dict(color=np.where(np.isfinite(groups), groups, np.nan)[drawn], colorscale=VISIBLE, colorbar=theme.color_bar(group_label))
    words = [wrapped(name) for name, shown in zip(names, drawn) if shown]
    hovered = f"%{{customdata}}<br>{theme.hover(x_label, '%{x:.3g}')}<br>{theme.hover(y_label, '%{y:.3g}')}<extra></extra>"
    look = dict(mode="markers", marker=dict(**color, size=8, line=dict(color=theme.QUIET, width=0.8)), hovertemplate=hovered)
    fig.add_trace(go.Scatter(x=x[drawn], y=y[drawn], customdata=words, **look))
    axis = dict(type="log", dtick=1, range=[low, high], **theme.GRID)
    fig.update_xaxes(title_text=wrapped(x_label), **axis)
    fig.update_yaxes(title_text=wrapped(y_label, 40), **axis)
    return theme.titled(fig, title, subtitle, 470, not_drawn(x, y, positive=True))


def trade_off(x, y, names: Sequence[str], title: str, x_label: str, y_label: str, lows=None, highs=None, subtitle: str = "") -> go.Figure:
    """A point for each arm, x on a logarithmic axis. Where points crowd, the first is named, the others where the pointer is.

    Args:
        x: (n,), > 0. y: (n,). lows, highs: (n,) intervals of y, or None. names: one for each point.

    Raises ValueError if the lengths do not fit.
    """
    x, y = labelled(x, "x", ("names", names)), labelled(y, "y", ("names", names))
    drawn = np.isfinite(x) & np.isfinite(y) & (x > 0)
    kept = [name for name, shown in zip(names, drawn) if shown]
    bars = None
    if lows is not None:
        lows, highs = labelled(lows, "lows", ("names", names)), labelled(highs, "highs", ("names", names))
        bars = theme.whiskers(y[drawn], lows[drawn], highs[drawn], theme.FAINT)
    hovered = f"%{{customdata}}<br>{theme.hover(x_label, '%{x:,.0f}')}<br>{theme.hover(y_label, '%{y:.3f}')}<extra></extra>"
    look = dict(mode="markers+text", marker=dict(color=theme.ACCENT, size=9), error_y=bars, cliponaxis=False, hovertemplate=hovered)
    named = dict(text=apart(x[drawn], y[drawn], kept), textposition="top right", textfont=dict(size=11, color=theme.INK))
    fig = go.Figure(go.Scatter(x=x[drawn], y=y[drawn], customdata=[wrapped(name) for name in kept], **look, **named))
    fig.update_xaxes(title_text=wrapped(x_label), type="log")
    fig.update_yaxes(title_text=wrapped(y_label, 40), **theme.GRID)
    return theme.titled(fig, title, subtitle, 440, not_drawn(x, positive=True) or not_drawn(y), margin_r=130)


def apart(x: np.ndarray, y: np.ndarray, names: Sequence[str]) -> list[str]:
    """The names that can be read beside each other, "" for the others: x > 0 on a logarithmic axis, y on a plain one."""
    across, up = np.log(x), y
    wide, high = (np.ptp(values) or 1.0 if len(values) else 1.0 for values in (across, up))
    shown: list[int] = []
    for k in range(len(names)):
        if all(abs(across[k] - across[j]) > APART[0] * wide or abs(up[k] - up[j]) > APART[1] * high for j in shown):
            shown.append(k)
    return [short(name, 20) if k in shown else "" for k, name in enumerate(names)]
