"""A text, each token coloured by a signed change: reads like the text itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from zamba_lab.viz import theme
from zamba_lab.viz.arrays import array, must_match
from zamba_lab.viz.tokens import places, short

WIDTH = 14  # tokens in a line of the text


def token_effect(change, tokens: Sequence[str], title: str, value_label: str, subtitle: str = "", top: float | None = None) -> go.Figure:
    """The text in lines of 14 tokens, red where the change is above 0, blue where it is below.

    Args:
        change: (token,), NaN where there is none (the first token is predicted from nothing): left white.
        tokens: one label for each.
        value_label: what the change is, with its unit.
        top: the magnitude of the strongest colour; None: the largest one here.

    Raises ValueError if there is not one token for each change.
    """
    change = array(change, "change", 1)
    must_match("tokens", tokens, len(change))
    top = float(np.nanmax(np.abs(change), initial=0.0)) if top is None else top
    hover = [
        f"{place}<br>" + ("no prediction" if np.isnan(c) else f"{value_label} <b>{c:+.3f}</b>") for place, c in zip(places(tokens), change)
    ]
    lines = -(-len(change) // WIDTH)
    fig = go.Figure(
        go.Heatmap(
            z=in_lines(np.nan_to_num(change), lines, filler=np.nan),
            text=in_lines([short(token) for token in tokens], lines),
            customdata=in_lines(hover, lines),
            texttemplate="%{text}",
            textfont=dict(family=theme.MONO, size=12.5),
            hovertemplate="%{customdata}<extra></extra>",
            hoverongaps=False,
            xgap=2,
            ygap=5,
            zmin=-top,
            zmax=top,
            colorscale=theme.DIVERGING,
            colorbar=theme.color_bar(value_label),
        )
    )
    fig.update_xaxes(title_text=f"the text, {WIDTH} tokens a line", showticklabels=False, ticks="", showline=False)
    fig.update_yaxes(
        title_text="line starts at",
        autorange="reversed",
        ticks="",
        showline=False,
        tickmode="array",
        tickvals=list(range(lines)),
        ticktext=[str(WIDTH * i) for i in range(lines)],
    )
    return theme.titled(fig, title, subtitle, height=180 + max(34 * lines, 130))


def in_lines(entries: Sequence, lines: int, filler="") -> list[list]:
    """Entries in rows of WIDTH, the last row filled up with `filler`."""
    entries = [*entries, *[filler] * (lines * WIDTH - len(entries))]
    return [entries[i * WIDTH : (i + 1) * WIDTH] for i in range(lines)]
