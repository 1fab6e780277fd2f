"""Numbers as coloured cells: over tokens and depth, in a table with its numbers, with words in them."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from zamba_lab.viz import theme
from zamba_lab.viz.labels import labelled, must_match, not_drawn, positions, token_label, wrapped

MAX_NUMBERS = 14  # columns of a table; with more of them numbers do not fit and only the hover text has them
LETTERS = 116  # characters that fit into a row of cells at 900 pixels
WORDS = 0.85  # the share of a lens map's cells below the strongest colour


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
        top: the value of the strongest colour, to compare figures; None: the largest finite magnitude here.

    Raises ValueError if the labels do not fit the values.
    """
    values = labelled(values, "values", ("rows", rows), ("tokens", tokens))
    names = [[wrapped(f"{row_label} {row}")] * len(tokens) for row in rows]
    number = theme.hover(value_label, "%{z:.3g}")
    look = dict(xgap=0.5, ygap=1, **theme.color_scale(values, value_label, signed, top))
    fig = go.Figure()
    add_cells(fig, values, positions(tokens), range(len(rows)), "%{x}<br>%{customdata}", number, customdata=names, **look)
    fig.update_xaxes(title_text="token", tickangle=-90, **theme.token_axis(tokens))
    fig.update_yaxes(**theme.label_axis(rows, row_label))
    return theme.titled(fig, title, subtitle, 210 + min(26 * len(rows), 520), not_drawn(values))


def add_cells(fig: go.Figure, values: np.ndarray, x: Sequence, y: Sequence, where: str, number: str, absent=False, **look) -> None:
    """A (row, column) map of cells; one that holds inf, -inf or nan has no colour and that word in its middle.

    x, y: where the columns and rows are. where, number: templates of the hover text. absent: (row, column) bool, cells without
    either. look: of the heatmap; its customdata, if there is any, also of those words.
    """
    x, y, names = list(x), list(y), look.get("customdata")
    numbers = np.isfinite(values)
    shown = np.where(numbers & ~np.asarray(absent), values, np.nan)
    if "text" in look:
        look["text"] = np.where(numbers, np.array(look["text"], object).reshape(values.shape), "").tolist()
    fig.add_trace(go.Heatmap(z=shown, x=x, y=y, hovertemplate=f"{where}<br>{number}<extra></extra>", **look))
    at = np.argwhere(~numbers & ~np.asarray(absent))
    if len(at):
        words = go.Scatter(
            x=[x[column] for _, column in at],
            y=[y[row] for row, _ in at],
            mode="text",
            text=[str(values[row, column]) for row, column in at],
            customdata=None if names is None else [names[row][column] for row, column in at],
            textfont=dict(size=10, color=theme.INK),
            hovertemplate=f"{where}<br><b>%{{text}}</b><extra></extra>",
        )
        fig.add_trace(words)


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
        values: (row, column); what is not finite stands in its cell as a word, without a colour.
        rows, columns: one label each. row_label, column_label: the titles of the axes. value_label: with its unit.
        signed: colours diverge from 0. top: the value of the strongest colour; None: the largest finite magnitude here.
        low, high: intervals, of the shape of values, or None. A number whose interval leaves out 0 is bold.

    Raises ValueError if shapes or labels do not fit.
    """
    values = labelled(values, "values", *(axes := (("rows", rows), ("columns", columns))))
    names = np.array([[wrapped(f"{row_label} {r}") + "<br>" + wrapped(f"{column_label} {c}") for c in columns] for r in rows], object)
    sure = np.zeros(values.shape, dtype=bool)
    if low is not None:
        low, high = labelled(low, "low", *axes), labelled(high, "high", *axes)
        sure = (low > 0) | (high < 0)
        names = names + np.vectorize("<br>interval {:+.3f} to {:+.3f}".format, otypes=[object])(low, high)
    text = np.vectorize(cell_number, otypes=[object])(values, sure, signed).tolist()
    look = dict(customdata=names.tolist(), text=text, texttemplate="%{text}" if len(columns) <= MAX_NUMBERS else None)
    look |= dict(
        textfont=dict(size=12.5, color=theme.DARK), xgap=2, ygap=2, **theme.color_scale(values, value_label, signed, top, words=True)
    )
    fig, number = go.Figure(), theme.hover(value_label, f"%{{z:{'+' * signed}.4f}}")
    add_cells(fig, values, range(len(columns)), range(len(rows)), "%{customdata}", number, **look)
    axis = dict(xaxis=theme.label_axis(columns, column_label, most=16), yaxis=theme.label_axis(rows, row_label, autorange="reversed"))
    return theme.titled(fig, title, subtitle, 195 + 50 * len(rows), not_drawn(values), **axis)


def cell_number(value: float, sure: bool, signed: bool) -> str:
    """What stands in a table's cell."""
    words = f"{value:{'+' * signed}.3f}" if value else "0"
    return f"<b>{words}</b>" if sure else words


def lens_map(
    words: Sequence[Sequence[str]], values, tokens: Sequence[str], sites: Sequence[str], title: str, value_label: str, subtitle: str = ""
) -> go.Figure:
    """What each site would say after each token: the word in the cell, how far from the model's own word its colour.

    Args:
        words: (site, token) the likeliest next token there. values: (site, token), >= 0. The strongest colour is that of
            the value that 85 % of the cells stay below: the first sites are so far off that the others would all be white.
            Where cells lie above it the subtitle says so.
        tokens, sites: one label for each column and row. The first site is at the bottom: the stream flows upwards.

    Raises ValueError if shapes or labels do not fit.
    """
    values = labelled(values, "values", ("sites", sites), ("tokens", tokens))
    must_match("words", words, len(sites))
    for line in words:
        must_match("words of a site", line, len(tokens))
    top = theme.largest(values, WORDS)
    scale = theme.color_scale(values, value_label, top=top, words=True)
    room = LETTERS // max(1, len(tokens))
    text = [[token_label(word, room) if room > 1 else "" for word in line] for line in words]
    names = [[wrapped(f"{site}: «{word}»") for word in line] for site, line in zip(sites, words)]
    look = dict(
        text=text,
        texttemplate="%{text}",
        textfont=dict(family=theme.MONO, size=9.5, color=theme.DARK),
        xgap=1,
        ygap=1,
        customdata=names,
        **scale,
    )
    fig = go.Figure()
    number = theme.hover(value_label, "%{z:.3f}")
    add_cells(fig, values, positions(tokens), range(len(sites)), "after %{x}<br>%{customdata}", number, **look)
    fig.update_xaxes(title_text="after token", tickangle=-90, **theme.token_axis(tokens))
    fig.update_yaxes(**theme.label_axis(sites, "site"))
    return theme.titled(fig, title, subtitle, 200 + 27 * len(sites), theme.sentences(theme.beyond(values, top), not_drawn(values)))
