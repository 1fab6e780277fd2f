"""One number for each token and row: tokens across, depth (or heads) down."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from zamba_lab.viz import theme
from zamba_lab.viz.arrays import array, must_match
from zamba_lab.viz.tokens import places, token_axis


def heatmap(
    values,
    tokens: Sequence[str],
    rows: Sequence[str],
    title: str,
    row_label: str = "depth",
    value_label: str = "value",
    subtitle: str = "",
    signed: bool = False,
    top: float | None = None,
) -> go.Figure:
    """A map of values over tokens and rows.

    Args:
        values: (row, token). Row 0 is drawn at the bottom: depth grows upwards, as the stream flows.
        tokens, rows: one label for each column and row.
        value_label: what a value is, with its unit: beside the colour bar and in the hover text.
        signed: colours diverge from 0 instead of growing from it.
        top: the value of the strongest colour, to compare figures; None: the largest magnitude here.

    Raises ValueError if the labels do not fit the values.
    """
    values = array(values, "values", 2)
    must_match("tokens", tokens, values.shape[1])
    must_match("rows", rows, values.shape[0])
    top = float(np.nanmax(np.abs(values))) if top is None else top
    fig = go.Figure(
        go.Heatmap(
            z=values,
            x=places(tokens),
            y=list(rows),
            hovertemplate=f"%{{x}}<br>{row_label} %{{y}}<br>{value_label} <b>%{{z:.3g}}</b><extra></extra>",
            zmin=-top if signed else 0,
            zmax=top,
            colorscale=theme.DIVERGING if signed else theme.SEQUENTIAL,
            colorbar=theme.color_bar(value_label),
            xgap=0.5,
            ygap=1,
        )
    )
    fig.update_xaxes(title_text="token", tickangle=-90, **token_axis(tokens))
    fig.update_yaxes(title_text=row_label, type="category")
    return theme.titled(fig, title, subtitle, height=210 + min(26 * len(rows), 520))
