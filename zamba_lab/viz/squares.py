"""Square maps side by side: which token reads which, of a few heads with their tokens, or of all heads at a glance."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from zamba_lab.viz import theme
from zamba_lab.viz.labels import labelled, not_drawn, positions, short, token_label, wrapped
from zamba_lab.viz.maps import add_cells

MAX_ACROSS = 3  # maps side by side, unless asked for
WIDTH = 680  # pixels of all of them together
EVEN = 16  # times an even weight: the strongest colour of attention
WEIGHTS = 0.97  # the share of a signed map's cells below the strongest colour


def attention_grid(
    maps,
    tokens: Sequence[str],
    names: Sequence[str],
    title: str,
    subtitle: str = "",
    value_label: str = "attention weight",
    signed: bool = False,
    across: int | None = None,
) -> go.Figure:
    """One square map for each entry: which token (row) reads which (column). What lies ahead is left blank.

    Weights are coloured by how many times they are an even one, up to EVEN, on one logarithmic scale for all figures: the first
    token's row, which is always 1, bleaches nothing. Signed maps: up to the value that 97 % of the cells stay within.

    Args:
        maps: (map, l, s), l = s = the number of tokens; probabilities, or if signed other weights. tokens, names: one label each.
        value_label: what a weight is. signed: colours diverge from 0.
        across: how many maps stand side by side; None: as even as possible, at most 3.

    Raises ValueError if the labels do not fit the maps.
    """
    maps = labelled(maps, "maps", ("names", names), ("tokens", tokens), ("tokens", tokens))
    ahead = np.triu(np.ones(maps.shape[1:], dtype=bool), k=1)
    places, coloured = Places(len(names), len(tokens), across), by_size if signed else against_even
    shown, number, scale, note = coloured(maps, ahead, value_label)
    columns, rows = places.categories(tokens, places.across, places.wide), places.categories(tokens, places.down, places.high)
    fig = go.Figure()
    for i, name in enumerate(names):
        x, y = places.at(i)
        look = dict(absent=ahead, showscale=i == 0, customdata=maps[i].astype(np.float32), **scale)
        where = f"{wrapped(name)}<br>%{{y}}<br>reads %{{x}}"
        add_cells(fig, shown[i], columns[x : x + len(tokens)], rows[y : y + len(tokens)], where, number, **look)
        heading = dict(text=short(name, places.letters), showarrow=False, font=dict(size=12, color=theme.INK))
        fig.add_annotation(x=x - 0.5, y=y - 0.5, xanchor="left", yanchor="bottom", yshift=2, **heading)
    places.frame(fig, tokens, columns, rows)
    if fig.data:
        fig.data[0].colorbar.update(lenmode="pixels", len=min(300, places.height), y=1, yanchor="top")
    return theme.titled(fig, title, subtitle, 170 + places.height, theme.sentences(note, not_drawn(maps[:, ~ahead])))


def against_even(maps: np.ndarray, ahead: np.ndarray, label: str) -> tuple[np.ndarray, str, dict, str]:
    """What is coloured, a hover template, the colours, and a sentence on them, of weights beside those of an even row."""
    ratio = maps * np.arange(1, maps.shape[-1] + 1)[:, None]
    shown, ticks = np.log2(1 + np.maximum(ratio, 0)), [0, 1, 2, 4, 8, EVEN]
    scale = theme.color_scale(shown, f"{label} / an even one", top=np.log2(1 + EVEN))
    scale["colorbar"] |= dict(tickvals=np.log2(1 + np.array(ticks)), ticktext=["0", "even", "2×", "4×", "8×", f"{EVEN}× +"])
    return shown, f"{wrapped(label)} <b>%{{customdata:.3f}}</b>", scale, f"Colour: {label} against an even one, up to {EVEN} times"


def by_size(maps: np.ndarray, ahead: np.ndarray, label: str) -> tuple[np.ndarray, str, dict, str]:
    """The same of signed values."""
    top = theme.largest(maps[:, ~ahead], WEIGHTS)
    return maps, theme.hover(label, "%{z:.3f}"), theme.color_scale(maps, label, True, top), theme.beyond(maps[:, ~ahead], top)


class Places:
    """Where each of some square maps is on two axes of cells: rows of maps, a heading above each, narrow gaps between."""

    def __init__(self, count: int, cells: int, across: int | None):
        self.down = max(1, -(-count // (across or MAX_ACROSS)))
        self.across = across or max(1, -(-count // self.down))  # four maps stand two by two
        self.count, self.cells = count, max(1, cells)
        self.side = min(430, WIDTH / self.across)  # pixels, about
        self.gap, self.heading = (max(1, -(-pixels * self.cells // int(self.side))) for pixels in (10, 24))
        self.wide, self.high = self.cells + self.gap, self.cells + self.heading
        self.letters = int(self.side / 6.5)  # of a heading
        self.height = round(self.down * self.high * self.side / self.cells)

    def at(self, i: int) -> tuple[int, int]:
        """The column and row of map i's first cell."""
        return i % self.across * self.wide, i // self.across * self.high

    def categories(self, tokens: Sequence[str], count: int, step: int) -> list[str]:
        """A name for each place of an axis: the token's, made unlike that in other maps by spaces without width."""
        between = step - len(tokens)
        return [name + "\u200b" * k for k in range(count) for name in [*positions(tokens), *(f"between {i}" for i in range(between))]]

    def axis(self, tokens: Sequence[str], names: list[str], count: int, step: int) -> dict:
        """An axis of such places; its ticks say tokens, or nothing where there is no room for a few."""
        every = -(-11 * self.cells // int(self.side))  # a label needs 11 pixels
        shown = [k * step + i for k in range(count) for i in range(0, len(tokens), every)] if self.side > 100 else []
        axis = theme.token_axis(tokens, size=9, constrain="domain", showline=False)
        ticks = dict(tickvals=[at + 0.01 for at in shown], ticktext=[token_label(tokens[at % step]) for at in shown])
        return axis | ticks | dict(categoryarray=names)

    def frame(self, fig: go.Figure, tokens: Sequence[str], columns: list[str], rows: list[str]) -> None:
        """Both axes, and an outline around each map."""
        right, bottom, top = self.across * self.wide - self.gap, self.down * self.high - 0.5 - self.heading, -1 - self.heading
        across = self.axis(tokens, columns, self.across, self.wide) | dict(title_text="token read", tickangle=-90, range=[-1, right])
        down = self.axis(tokens, rows, self.down, self.high) | dict(title_text="token that reads", scaleanchor="x", range=[bottom, top])
        fig.update_layout(xaxis=across, yaxis=down)
        fig.add_shape(type="path", path=self.outlines(), line=dict(color=theme.RULE, width=1), layer="below")

    def outlines(self) -> str:
        """The triangle of each map, as a path."""
        corners = [(x - 0.5, y - 0.5, self.cells) for x, y in map(self.at, range(self.count))]
        return " ".join(f"M{x},{y} L{x},{y + n} L{x + n},{y + n} L{x + n},{y + n - 1} L{x + 1},{y} Z" for x, y, n in corners)
