"""A small table of numbers as coloured squares, each with its number: every row against every column."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from zamba_lab.viz import theme
from zamba_lab.viz.arrays import array, must_match

CELL = 62                     # pixels of a row
MAX_NUMBERS = 14              # columns; with more of them numbers do not fit and only the hover text has them


def matrix(values, rows: Sequence[str], columns: Sequence[str], title: str, row_label: str, column_label: str,
           value_label: str, subtitle: str = "", top: float | None = None) -> go.Figure:
    """A table of magnitudes, the first row on top.

    Args:
        values: (row, column), >= 0; NaN is left blank.
        rows, columns: one label each.
        row_label, column_label: the titles of the axes. value_label: what a value is, with its unit.
        top: the value of the strongest colour; None: the largest here.

    Raises ValueError if the labels do not fit the values.
    """
    values = array(values, "values", 2)
    must_match("rows", rows, values.shape[0])
    must_match("columns", columns, values.shape[1])
    top = float(np.nanmax(values, initial=0.0)) if top is None else top
    written = values.shape[1] <= MAX_NUMBERS
    fig = go.Figure(go.Heatmap(
        z=values, x=list(range(len(columns))), y=list(range(len(rows))), zmin=0, zmax=top or 1, hoverongaps=False,
        text=[[f"{row_label} {r}<br>{column_label} {c}" for c in columns] for r in rows],
        texttemplate="%{z:.2f}" if written else None, textfont=dict(size=13),
        hovertemplate="%{text}<br>" + value_label + " <b>%{z:.3f}</b><extra></extra>", xgap=3, ygap=3,
        colorscale=theme.SEQUENTIAL, colorbar=theme.color_bar(value_label)))
    ticks = dict(tickmode="array", showline=False, ticks="")
    fig.update_xaxes(title_text=column_label, tickvals=list(range(len(columns))), ticktext=list(columns), **ticks)
    fig.update_yaxes(title_text=row_label, tickvals=list(range(len(rows))), ticktext=list(rows), autorange="reversed", **ticks)
    return theme.titled(fig, title, subtitle, height=190 + CELL * len(rows))
