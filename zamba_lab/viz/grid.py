"""Small tables as pictures: a number for each row and column, coloured, with its words in the cell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from zamba_lab.viz import theme
from zamba_lab.viz.arrays import array, must_match
from zamba_lab.viz.tokens import places, printable, short, token_axis


def table(values, rows: Sequence[str], columns: Sequence[str], title: str, row_label: str, column_label: str, value_label: str,
          subtitle: str = "", low=None, high=None) -> go.Figure:
    """A signed number for each row and column, with its interval, if given, in the hover text; the first row on top.

    Args:
        values: (row, column). low, high: intervals of that shape, or None. A number whose interval leaves out 0 is
            bold; one that is exactly 0 stands as 0.

    Raises ValueError if shapes or labels do not fit.
    """
    values = array(values, "values", 2)
    must_match("rows", rows, values.shape[0])
    must_match("columns", columns, values.shape[1])
    ends = [values if end is None else array(end, name, 2) for end, name in ((low, "low"), (high, "high"))]
    if any(end.shape != values.shape for end in ends):
        raise ValueError(f"low and high must have the shape of values: got {ends[0].shape} and {ends[1].shape}, values "
                         f"{values.shape}")
    sure = (low is not None) & ((ends[0] > 0) | (ends[1] < 0))
    text = [[f"<b>{v:+.3f}</b>" if s else f"{v:+.3f}" if v else "0" for v, s in zip(*line)] for line in zip(values, sure)]
    hover = [[f"{a:+.3f} to {b:+.3f}" for a, b in zip(*line)] for line in zip(*ends)]
    top = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    words = "" if low is None else "<br>interval %{customdata}"
    fig = go.Figure(go.Heatmap(
        z=values, x=list(columns), y=list(rows), text=text, customdata=hover, texttemplate="%{text}", textfont=dict(size=12),
        hovertemplate=f"{row_label} %{{y}}, {column_label} %{{x}}<br>{value_label} <b>%{{z:+.4f}}</b>{words}<extra></extra>",
        zmin=-top, zmax=top, colorscale=theme.DIVERGING, colorbar=theme.color_bar(value_label), xgap=2, ygap=2))
    fig.update_xaxes(title_text=column_label, type="category")
    fig.update_yaxes(title_text=row_label, type="category", autorange="reversed")
    return theme.titled(fig, title, subtitle, height=200 + 44 * len(rows))


def lens_map(words: Sequence[Sequence[str]], values, tokens: Sequence[str], sites: Sequence[str], title: str,
             value_label: str, subtitle: str = "") -> go.Figure:
    """What each site would say after each token: the word in the cell, how far from the model's own word its colour.

    Args:
        words: (site, token) the likeliest next token there. values: (site, token), >= 0.
        tokens, sites: one label for each column and row. The first site is at the bottom: the stream flows upwards.

    Raises ValueError if shapes or labels do not fit.
    """
    values = array(values, "values", 2)
    must_match("sites", sites, values.shape[0])
    must_match("tokens", tokens, values.shape[1])
    must_match("words", words, len(sites))
    for line in words:
        must_match("words of a site", line, len(tokens))
    hover = [[f"{site} after {place}:<br>says «{printable(word)}»" for place, word in zip(places(tokens), line)]
             for site, line in zip(sites, words)]
    fig = go.Figure(go.Heatmap(
        z=values, x=places(tokens), y=list(sites), text=[[fitting(word, len(tokens)) for word in line] for line in words],
        customdata=hover, texttemplate="%{text}", textfont=dict(family=theme.MONO, size=9.5), xgap=1, ygap=1, zmin=0,
        hovertemplate=f"%{{customdata}}<br>{value_label} <b>%{{z:.3f}}</b><extra></extra>",
        colorscale=theme.SEQUENTIAL, colorbar=theme.color_bar(value_label)))
    fig.update_xaxes(title_text="after token", tickangle=-90, **token_axis(tokens))
    fig.update_yaxes(title_text="site", type="category")
    return theme.titled(fig, title, subtitle, height=200 + 27 * len(sites))


def fitting(word: str, columns: int) -> str:
    """A word cut to what a cell holds beside so many others; the hover text has it whole."""
    most = max(3, 200 // columns)
    return short(word if len(word) <= most else word[:most - 1] + "…")
