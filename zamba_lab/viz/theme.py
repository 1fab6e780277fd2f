"""The one look of all figures: fonts, colours, axes, legends, titles. Change it here and it changes everywhere.

Figures have no background of their own and their ink is mid-grey, so that they can be read on a light page and on a dark one.
"""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from zamba_lab.viz.labels import positions, short, token_label, wrapped

INK, QUIET, RULE, CLEAR = "#6b7785", "#7f8a97", "rgba(127,138,151,0.25)", "rgba(0,0,0,0)"
DARK, LIGHT = "#1f2a37", "#ffffff"  # ink and paper of what has a background of its own
FONT = "Inter, 'Segoe UI', 'Helvetica Neue', Helvetica, Arial, sans-serif"
MONO = "'JetBrains Mono', 'SF Mono', Menlo, Consolas, 'DejaVu Sans Mono', monospace"

# Categories: the first two are the shared blocks A and B, wherever they appear.
SERIES = ("#0d7f8c", "#e08a1e", "#7a5bb5", "#c2456b", "#4f7d3a", "#3d6fb6")
ACCENT, FAINT = SERIES[0], "#a9b6c3"
BELOW, ABOVE = "#3d7cc0", "#c9524d"  # of a base

# Without words in the cells: nothing is clear, so that the page shows through, light or dark, and much is a colour that stands out
# on both. With words: pale to mid, and dark letters can be read on all of it. Signed values: blue below 0, red above.
SEQUENTIAL = [[0.0, "rgba(18,136,150,0)"], [0.25, "rgba(18,136,150,0.33)"], [1.0, "rgba(18,136,150,1)"]]
DIVERGING = [[0.0, "rgba(46,109,180,1)"], [0.5, "rgba(128,128,128,0)"], [1.0, "rgba(201,82,60,1)"]]
CARDS = [[0.0, "#e6ebef"], [0.5, "#a5d2d3"], [1.0, "#4fa6b0"]]
SIGNED_CARDS = [[0.0, "#6f9fd6"], [0.5, "#e9ebed"], [1.0, "#e8866f"]]

GRID = dict(showgrid=True, gridcolor=RULE)
ZERO = dict(**GRID, zeroline=True, zerolinecolor=QUIET)
BARE = dict(showline=False, ticks="")
MAX_TICKS = 96  # more token labels than that are thinned out evenly
TITLE, SUBTITLE = 88, 126  # characters of their lines in 900 pixels

_AXIS = dict(
    showgrid=False,
    zeroline=False,
    showline=True,
    linecolor=RULE,
    ticks="outside",
    ticklen=4,
    tickcolor=RULE,
    tickfont=dict(size=11, color=INK),
    title=dict(font=dict(size=12.5, color=INK), standoff=12),
    automargin=True,
)
TEMPLATE = go.layout.Template(
    layout=dict(
        font=dict(family=FONT, size=13, color=INK),
        title=dict(
            font=dict(size=17, color=INK),
            subtitle=dict(font=dict(size=12.5, color=QUIET)),
            **dict(x=0, xref="container", xanchor="left", pad=dict(l=18), yref="container", yanchor="top"),
        ),
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        colorway=SERIES,
        xaxis=_AXIS,
        yaxis=_AXIS,
        margin=dict(l=72, r=24, b=64),
        hoverlabel=dict(bgcolor=DARK, bordercolor=DARK, font=dict(family=FONT, size=12.5, color=LIGHT), align="left", namelength=-1),
        colorscale=dict(sequential=SEQUENTIAL, diverging=DIVERGING),
        modebar=dict(bgcolor=CLEAR, color=FAINT, activecolor=QUIET, remove=["lasso2d", "select2d", "autoScale2d", "zoomIn2d", "zoomOut2d"]),
        showlegend=False,
        legend=dict(orientation="h", x=0, xanchor="left", yref="container", y=0, yanchor="bottom", font=dict(size=12), bgcolor=CLEAR),
    )
)


def titled(fig: go.Figure, title: str, subtitle: str, height: int, note: str = "", heading: int = 0, **layout) -> go.Figure:
    """Put the look, a title and a height on a figure; returns it.

    note: a sentence after the subtitle. heading: pixels that the figure needs between the subtitle and its axes.
    """
    subtitle = sentences(subtitle, note)
    first, second = wrapped(title, TITLE), wrapped(subtitle, SUBTITLE)
    more = 21 * first.count("<br>") + 16 * second.count("<br>")  # pixels of the lines after the first
    height += more + heading
    fig.update_layout(template=TEMPLATE, height=height, margin_t=84 + more + heading, **layout)
    # In pixels from the top edge, whatever the height: the title's place is a fraction of the container.
    return fig.update_layout(title=dict(text=f"<b>{first}</b>", subtitle_text=second, y=1 - 20 / height))


def sentences(*parts: str) -> str:
    """The parts that say something, each but the last closed by a full stop if it is not."""
    parts = [part for part in parts if part]
    return " ".join([part if part[-1] in ".?!" else f"{part}." for part in parts[:-1]] + parts[-1:])


def color_bar(label: str) -> dict:
    """A thin colour bar with its label along it."""
    title = dict(text=wrapped(label, 40), side="right", font=dict(size=12, color=QUIET))
    return dict(title=title, thickness=11, outlinewidth=0, tickfont=dict(size=11, color=QUIET), ticks="")


def largest(values: np.ndarray, share: float = 1.0) -> float:
    """The magnitude that this share of the finite values stay within; 1 if that is 0 or there are none."""
    magnitudes = np.abs(values[np.isfinite(values)])
    return float(np.quantile(magnitudes, share, method="higher")) or 1.0 if magnitudes.size else 1.0


def color_scale(values: np.ndarray, label: str, signed: bool = False, top: float | None = None, words: bool = False) -> dict:
    """A heatmap's colours: from 0 to `top`, or from -top to top around 0; None: the largest finite magnitude. words: in its cells."""
    top = top or largest(values)
    plain, diverging = (CARDS, SIGNED_CARDS) if words else (SEQUENTIAL, DIVERGING)
    colors = dict(colorscale=diverging if signed else plain, colorbar=color_bar(label))
    return dict(zmin=-top if signed else 0, zmax=top, hoverongaps=False, **colors)


def beyond(values: np.ndarray, top: float) -> str:
    """A sentence for values that the strongest colour does not tell apart, or ""."""
    return f"The strongest colour: {top:.3g} and more." if (np.abs(values[np.isfinite(values)]) > top).any() else ""


def label_axis(labels: Sequence[str], title: str, most: int = 36, **more) -> dict:
    """Layout of an axis with one label at each of 0, 1, 2, ...; equal labels are separate entries."""
    return dict(
        title_text=wrapped(title, 60),
        tickmode="array",
        tickvals=list(range(len(labels))),
        ticktext=[short(label, most) for label in labels],
        tickfont=dict(size=12, color=INK),
        **(BARE | more),
    )


def token_axis(tokens: Sequence[str], size: float = 10.5, most: int = MAX_TICKS, **more) -> dict:
    """Layout of an axis whose categories are `positions(tokens)`: its ticks, at most so many, say the token only."""
    shown = range(0, len(tokens), max(1, -(-len(tokens) // most)))
    # A hair beside their categories: where both are at one number, hover text has the tick's label for the category's name.
    beside = max(0.01, len(tokens) / 5000)
    return dict(
        type="category",
        categoryorder="array",
        categoryarray=positions(tokens),
        tickmode="array",
        tickvals=[at + beside for at in shown],
        ticktext=[token_label(tokens[at]) for at in shown],
        tickfont=dict(family=MONO, size=size, color=INK),
        ticks="",
        **more,
    )


def whiskers(means: np.ndarray, lows: np.ndarray, highs: np.ndarray, color: str) -> dict:
    """Error bars from lows to highs; where an end is not finite, none."""
    up, down = (np.where(np.isfinite(part), part, 0.0) for part in (highs - means, means - lows))
    return dict(type="data", symmetric=False, array=up, arrayminus=down, color=color, thickness=1.8, width=4)


def across(lengths: Sequence[float], rows: Sequence[int], words: Sequence[str], **look) -> go.Bar:
    """Horizontal bars at their rows; words: the hover text of each."""
    look["marker"] = look["marker"] | dict(line_width=0)
    return go.Bar(x=lengths, y=rows, orientation="h", customdata=words, hovertemplate="%{customdata}<extra></extra>", **look)


def hover(label: str, number: str) -> str:
    """A hover template: a label, then a number in bold, such as %{y:.3f}."""
    return f"{wrapped(label)} <b>{number}</b>"


def log_range(values: np.ndarray) -> list[float]:
    """The ends of a logarithmic axis as powers of ten, a little beyond the values; NaN has no place on it."""
    values = values[~np.isnan(values)] if not np.isnan(values).all() else np.ones(1)
    return [float(np.log10(values.min())) - 0.15, float(np.log10(values.max())) + 0.15]
