"""A sequence as an axis. Tokens repeat, so a position's name has its number; its label is the token alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape

from zamba_lab.viz import theme

MAX_TICKS = 96  # more labels than that are thinned out evenly
MAX_LABEL = 11  # characters; the hover text has the whole token
POWERS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def printable(token: str) -> str:
    """A token as plotly text: `<` and `&` would be read as markup."""
    return escape(token, quote=False)


def short(token: str) -> str:
    """A token's label on an axis; four or more spaces are counted: `⏎········` is ⏎·⁸."""
    token = re.sub("·{4,}", lambda run: "·" + str(len(run[0])).translate(POWERS), token)
    return printable(token if len(token) <= MAX_LABEL else token[: MAX_LABEL - 1] + "…")


def places(tokens: Sequence[str]) -> list[str]:
    """Each position in words, for hover text and as an axis's categories: token 12 «return»."""
    return [f"token {i} «{printable(token)}»" for i, token in enumerate(tokens)]


def token_axis(tokens: Sequence[str], size: float = 10.5, most: int = MAX_TICKS, **more) -> dict:
    """Layout of an axis whose categories are `places(tokens)`: its ticks, at most so many, say the token only."""
    every = -(-len(tokens) // most)
    shown = range(0, len(tokens), every)
    return dict(
        type="category",
        tickmode="array",
        tickvals=list(shown),
        ticktext=[short(tokens[i]) for i in shown],
        tickfont=dict(family=theme.MONO, size=size, color=theme.INK),
        ticks="",
        **more,
    )
