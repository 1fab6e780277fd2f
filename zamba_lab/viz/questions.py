"""A sequence of a task as cells: what is read, where something is asked, what the answer is, and what a model said."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from zamba_lab.viz import theme
from zamba_lab.viz.arrays import must_match
from zamba_lab.viz.tokens import printable, short

WIDTH = 16  # tokens in a line
FILL = {"read": "#f3f6f8", "asked": "#fbe3c8", "right": "#cfe6e6", "wrong": "#f0c9d4"}


def questions(
    tokens: Sequence[str], answers: Sequence[str | None], title: str, said: Sequence[str | None] | None = None, subtitle: str = ""
) -> go.Figure:
    """The sequence in lines of 16 tokens; below each asked one the answer, its cell coloured.

    Args:
        tokens: one label for each position. answers: what should be said there, None where nothing is asked.
        said: what a model said, where something is asked; the colour then says whether it was right. None: no model.

    Raises ValueError if the lengths differ.
    """
    must_match("answers", answers, len(tokens))
    by_model = said is not None
    said = said if by_model else answers
    must_match("said", said, len(tokens))
    kinds = [kind_of(answer, word, by_model) for answer, word in zip(answers, said)]
    places = [(at % WIDTH, at // WIDTH) for at in range(len(tokens))]
    fig = go.Figure(
        go.Scatter(
            x=[x for x, _ in places],
            y=[y for _, y in places],
            mode="markers+text",
            text=[cell(*one) for one in zip(tokens, answers)],
            textfont=dict(family=theme.MONO, size=11.5),
            hovertemplate="%{customdata}<extra></extra>",
            customdata=[hover(*one) for one in zip(range(len(tokens)), tokens, answers, said)],
            marker=dict(symbol="square", size=38, color=[FILL[kind] for kind in kinds], line=dict(width=0)),
        )
    )
    lines = -(-len(tokens) // WIDTH)
    fig.update_xaxes(
        title_text=f"the sequence, {WIDTH} tokens a line", range=[-0.6, WIDTH - 0.4], showticklabels=False, ticks="", showline=False
    )
    fig.update_yaxes(
        title_text="line starts at",
        range=[lines - 0.4, -0.6],
        ticks="",
        showline=False,
        tickmode="array",
        tickvals=list(range(lines)),
        ticktext=[str(WIDTH * line) for line in range(lines)],
    )
    return theme.titled(fig, title, subtitle, height=190 + 46 * lines)


def kind_of(answer: str | None, said: str | None, by_model: bool) -> str:
    if answer is None:
        return "read"
    return "asked" if not by_model else "right" if said == answer else "wrong"


def cell(token: str, answer: str | None) -> str:
    return short(token) if answer is None else f"{short(token)}<br><b>{short(answer)}</b>"


def hover(at: int, token: str, answer: str | None, said: str | None) -> str:
    asked = "nothing is asked" if answer is None else f"asked, the answer is <b>{printable(answer)}</b>"
    return f"token {at} «{printable(token)}»<br>{asked}" + ("" if answer in (None, said) else f"<br>said {printable(str(said))}")
