"""Small tables as pictures: a number for each row and column, coloured, with its words in the cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from zamba_lab.viz import theme
from zamba_lab.viz.arrays import array, must_match
from zamba_lab.viz.tokens import places, printable, short, token_axis


MAX_NUMBERS = 14  # columns; with more of them numbers do not fit and only the hover text has them


def table(
    values,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    row_label: str,
    column_label: str,
    value_label: str,
    subtitle: str = "",
    signed: bool = False,
    top: float | None = None,
    low=None,
    high=None,
) -> go.Figure:
    """A number for each row and column, with its interval, if given, in the hover text; the first row on top.

    Args:
        values: (row, column); NaN is left blank.
        rows, columns: one label each. row_label, column_label: the titles of the axes. value_label: with its unit.
        signed: colours diverge from 0 instead of growing from it. A number that is exactly 0 stands as 0.
        top: the value of the strongest colour; None: the largest magnitude here.
        low, high: intervals, of the shape of values, or None. A number whose interval leaves out 0 is bold.

    Raises ValueError if shapes or labels do not fit.
    """
    values = array(values, "values", 2)
    must_match("rows", rows, values.shape[0])
    must_match("columns", columns, values.shape[1])
    ends = [values if end is None else array(end, name, 2) for end, name in ((low, "low"), (high, "high"))]
    if any(end.shape != values.shape for end in ends):
        raise ValueError(f"low and high must have the shape of values: got {ends[0].shape} and {ends[1].shape}, values {values.shape}")
    sure = (low is not None) & ((ends[0] > 0) | (ends[1] < 0))
    spans = np.full(values.shape, "") if low is None else np.vectorize("<br>interval {:+.3f} to {:+.3f}".format)(*ends)
    top = (float(np.nanmax(np.abs(values), initial=0.0)) if top is None else top) or 1.0
    fig = go.Figure(
        go.Heatmap(
            z=values,
            x=list(range(len(columns))),
            y=list(range(len(rows))),
            zmin=-top if signed else 0,
            zmax=top,
            hoverongaps=False,
            text=[[number(*cell, signed) for cell in zip(*line)] for line in zip(values, sure)],
            texttemplate="%{text}" if len(columns) <= MAX_NUMBERS else None,
            textfont=dict(size=12.5),
            xgap=2,
            ygap=2,
            customdata=[
                [(f"{row_label} {r}<br>{column_label} {c}", span) for c, span in zip(columns, line)]
                for r, line in zip(rows, spans.tolist())
            ],
            hovertemplate=f"%{{customdata[0]}}<br>{value_label} <b>%{{z:{'+' * signed}.4f}}</b>%{{customdata[1]}}<extra></extra>",
            colorscale=theme.DIVERGING if signed else theme.SEQUENTIAL,
            colorbar=theme.color_bar(value_label),
        )
    )
    ticks = dict(tickmode="array", showline=False, ticks="")
    fig.update_xaxes(title_text=column_label, tickvals=list(range(len(columns))), ticktext=list(columns), **ticks)
    fig.update_yaxes(title_text=row_label, tickvals=list(range(len(rows))), ticktext=list(rows), autorange="reversed", **ticks)
    return theme.titled(fig, title, subtitle, height=195 + 50 * len(rows))


def number(value: float, sure: bool, signed: bool) -> str:
    """What stands in a cell."""
    if np.isnan(value):
        return ""
    words = f"{value:{'+' * signed}.3f}" if value else "0"
    return f"<b>{words}</b>" if sure else words


def lens_map(
    words: Sequence[Sequence[str]], values, tokens: Sequence[str], sites: Sequence[str], title: str, value_label: str, subtitle: str = ""
) -> go.Figure:
    """What each site would say after each token: the word in the cell, how far from the model's own word its colour.

    Args:
        words: (site, token) the likeliest next token there. values: (site, token), >= 0. The strongest colour is that of
            the value that 85 % of the cells stay below: the first sites are so far off that the others would all be white.
            Where cells lie above it the colour bar says so.
        tokens, sites: one label for each column and row. The first site is at the bottom: the stream flows upwards.

    Raises ValueError if shapes or labels do not fit.
    """
    values = array(values, "values", 2)
    must_match("sites", sites, values.shape[0])
    must_match("tokens", tokens, values.shape[1])
    must_match("words", words, len(sites))
    for line in words:
        must_match("words of a site", line, len(tokens))
    hover = [
        [f"{site} after {place}:<br>says «{printable(word)}»" for place, word in zip(places(tokens), line)]
        for site, line in zip(sites, words)
    ]
    top = float(np.quantile(values, 0.85)) or 1.0
    beyond = f"<br>{top:.3g} and more: the same colour" if (values > top).any() else ""
    fig = go.Figure(
        go.Heatmap(
            z=values,
            x=places(tokens),
            y=list(sites),
            text=[[fitting(word, len(tokens)) for word in line] for line in words],
            customdata=hover,
            texttemplate="%{text}",
            textfont=dict(family=theme.MONO, size=9.5),
            xgap=1,
            ygap=1,
            zmin=0,
            zmax=top,
            hovertemplate=f"%{{customdata}}<br>{value_label} <b>%{{z:.3f}}</b><extra></extra>",
            colorscale=theme.SEQUENTIAL,
            colorbar=theme.color_bar(value_label + beyond),
        )
    )
    fig.update_xaxes(title_text="after token", tickangle=-90, **token_axis(tokens))
    fig.update_yaxes(title_text="site", type="category")
    return theme.titled(fig, title, subtitle, height=200 + 27 * len(sites))


def fitting(word: str, columns: int) -> str:
    """A word cut to what a cell holds beside so many others; the hover text has it whole."""
    most = max(3, 200 // columns)
    return short(word if len(word) <= most else word[: most - 1] + "…")
