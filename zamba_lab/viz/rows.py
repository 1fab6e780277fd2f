"""One row for each of a few named things: bars, shares of a whole, means with their intervals."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from zamba_lab.viz import theme
from zamba_lab.viz.labels import array, labelled, must_match, not_drawn, short, wrapped

CONTROLLED = "the intervention", "random changes of its size"
SHIFTS, SYMBOLS = (-0.14, 0.14), ("circle", "diamond")
# By the first words of a verdict: what the legend says, and the colour.
VERDICTS = {
    "no verdict": ("no verdict", theme.FAINT),
    "alike": ("alike", theme.SERIES[4]),
    "equivalent": ("equivalent", theme.SERIES[4]),
    "more": ("more than the base", theme.ABOVE),
    "less": ("less than the base", theme.BELOW),
}


def bars(values, names: Sequence[str], title: str, value_label: str, name_label: str, subtitle: str = "") -> go.Figure:
    """Horizontal bars, the first on top, each with its number.

    Args:
        values: one each; inf and -inf reach the end of the axis, nan has no bar, and all three are written as words.
        names: what each is of.
        value_label, name_label: the titles of the two axes, the first with its unit.

    Raises ValueError if there is not one name for each value.
    """
    values = labelled(values, "values", ("names", names))
    finite = values[np.isfinite(values)]
    left, right = finite.min(initial=0), finite.max(initial=0)
    room = 0.14 * (right - left or 1)  # for the numbers at the bars' ends
    ends = [left - room * (values < 0).any(), right + room]
    numbers = [f"{value:+.4f}" for value in values]
    lengths = np.clip(np.where(np.isnan(values), 0, values), left, right)
    words = [f"{wrapped(name)}<br>{theme.hover(value_label, number)}" for name, number in zip(names, numbers)]
    ends_with = dict(text=[f"{value:+.3g}" for value in values], textposition="outside", textfont=dict(size=12, color=theme.INK))
    rows = list(range(len(names)))
    fig = go.Figure(theme.across(lengths, rows, words, marker=dict(color=theme.ACCENT), width=0.66, cliponaxis=False, **ends_with))
    fig.update_xaxes(range=ends, title_text=wrapped(value_label), **theme.ZERO)
    fig.update_yaxes(**theme.label_axis(names, name_label, autorange="reversed"))
    return theme.titled(fig, title, subtitle, 150 + 27 * len(names), not_drawn(values), margin_r=64)


def stacked_shares(
    shares,
    rows: Sequence[str],
    parts: Sequence[str],
    title: str,
    row_label: str,
    subtitle: str = "",
    share_label: str = "share of the whole",
) -> go.Figure:
    """Horizontal bars, the first row on top, each part in its colour; what is below 0 goes to the left of the line.

    Args:
        shares: (part, row); the parts of a row sum to 1.
        rows, parts: one label each.

    Raises ValueError if the labels do not fit.
    """
    shares = labelled(shares, "shares", ("parts", parts), ("rows", rows))
    fig, finite = go.Figure(), np.where(np.isfinite(shares), shares, 0)
    for i, (part, values) in enumerate(zip(parts, finite)):
        words = [wrapped(f"{row_label} {row}") + f"<br>{theme.hover(part, f'{share:.3f}')}" for row, share in zip(rows, shares[i])]
        color = dict(color=theme.SERIES[i % len(theme.SERIES)])
        fig.add_trace(theme.across(values, list(range(len(rows))), words, marker=color, width=0.62, name=short(part)))
    low, high = np.minimum(finite, 0).sum(0).min(initial=0), np.maximum(finite, 0).sum(0).max(initial=0)
    fig.update_xaxes(title_text=wrapped(share_label), range=[low - 0.02, max(high, 1) + 0.02], **theme.ZERO)
    fig.update_yaxes(**theme.label_axis(rows, row_label, autorange="reversed"))
    layout = dict(barmode="relative", showlegend=True, legend_traceorder="normal")
    return theme.titled(fig, title, subtitle, 220 + 40 * len(rows), not_drawn(shares), **layout)


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
    fig = go.Figure()
    colors = theme.SERIES[0], theme.FAINT if tuple(series) == CONTROLLED else theme.SERIES[1]
    for i, (label, color) in enumerate(zip(series, colors)):
        add_means(fig, np.arange(len(means)) + SHIFTS[i], means[:, i], *intervals[:, i].T, color, short(label), SYMBOLS[i])
        fig.data[i].customdata = [
            f"{wrapped(f'{name}: {label}')}<br>{described(*numbers)}" for name, *numbers in zip(names, means[:, i], *intervals[:, i].T)
        ]
    row_axes(fig, names, value_label, row_label)
    return theme.titled(fig, title, subtitle, 190 + 40 * len(names), not_drawn(means, missing="not measured"), showlegend=True)


def add_means(fig: go.Figure, y, means: np.ndarray, lows: np.ndarray, highs: np.ndarray, color: str, name: str, symbol: str) -> None:
    """Marks at their rows, with whiskers; their customdata is the hover text."""
    drawn = np.where(np.isfinite(means), means, np.nan)
    whiskers = theme.whiskers(drawn, lows, highs, color)
    look = dict(name=name, mode="markers", marker=dict(color=color, size=9, symbol=symbol), hovertemplate="%{customdata}<extra></extra>")
    fig.add_trace(go.Scatter(x=drawn, y=y, error_x=whiskers, **look))


def described(mean: float, low: float, high: float) -> str:
    """A mean and its interval, if there is one."""
    return f"<b>{mean:+.4f}</b>" + ("" if np.isnan(low) or np.isnan(high) else f", interval {low:+.4f} to {high:+.4f}")


def row_axes(fig: go.Figure, names: Sequence[str], value_label: str, row_label: str) -> None:
    """Numbers with a line at 0 across, a named row for each entry down."""
    fig.update_xaxes(title_text=wrapped(value_label), **theme.ZERO)
    fig.update_yaxes(**theme.label_axis(names, row_label, range=[len(names) - 0.5, -0.5]))


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
        means, lows, highs: (row,). names: one for each row, the first on top.
        verdicts: one for each row; its first words are one of VERDICTS.
        margin: differences within +-margin, which do not matter, are shaded; None: no band.

    Raises ValueError if the lengths do not fit or a verdict begins with other words.
    """
    means, lows, highs = (labelled(values, name, ("names", names)) for values, name in ((means, "means"), (lows, "lows"), (highs, "highs")))
    must_match("verdicts", verdicts, len(names))
    kinds = [next((kind for kind in VERDICTS if verdict.startswith(kind)), None) for verdict in verdicts]
    if None in kinds:
        raise ValueError(f"a verdict begins with one of {', '.join(VERDICTS)}: got {verdicts[kinds.index(None)]!r}")
    fig = go.Figure()
    for kind in dict.fromkeys(kinds):
        name, color = VERDICTS[kind]
        at = np.flatnonzero([other == kind for other in kinds])
        add_means(fig, at, means[at], lows[at], highs[at], color, name, "circle")
        fig.data[-1].customdata = [f"{wrapped(names[k])}<br>{described(means[k], lows[k], highs[k])}<br>{wrapped(verdicts[k])}" for k in at]
    if margin is not None:
        band = dict(fillcolor=theme.RULE, line_width=0, layer="below", showlegend=True, name="too small to matter")
        fig.add_vrect(x0=-margin, x1=margin, **band)
    row_axes(fig, names, value_label, "arm")
    return theme.titled(fig, title, subtitle, 190 + 30 * len(names), not_drawn(means), showlegend=True)
