"""A sequence read like a text: each token coloured by a change, or by what was asked there and what was answered."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from zamba_lab.viz import theme
from zamba_lab.viz.labels import labelled, must_match, not_drawn, positions, short, token_label, wrapped

LETTERS = 86  # characters in a line of a text
MOST = 24  # characters of a token in it
ACROSS = 16  # tokens in a line of questions
# What a cell of a question means: its colour, and what the legend says.
KINDS = {
    "read": ("#e3e9ee", "read, nothing is asked"),
    "asked": ("#f4c98f", "asked; below it the right answer"),
    "right": ("#8fcfc4", "✓ right answer"),
    "wrong": ("#f0a3ac", "✗ wrong answer; below it the right one"),
}


def token_effect(change, tokens: Sequence[str], title: str, value_label: str, subtitle: str = "", top: float | None = None) -> go.Figure:
    """The text in lines, each token as wide as its letters, red where the change is above 0, blue where it is below.

    Args:
        change: (token,), NaN where there is none (the first token is predicted from nothing): left white.
        tokens: one label for each.
        value_label: what the change is, with its unit.
        top: the magnitude of the strongest colour; None: the largest finite one here.

    Raises ValueError if there is not one token for each change.
    """
    change = labelled(change, "change", ("tokens", tokens))
    top = top or theme.largest(change)
    labels = [token_label(token, MOST) for token in tokens]
    lines, starts, widths = layout([min(len(token), MOST) + 2 for token in tokens])
    words = ["no prediction" if np.isnan(c) else theme.hover(value_label, f"{c:+.3f}") for c in change]
    words = [f"{place}<br>{word}" for place, word in zip(positions(tokens), words)]
    color = dict(color=np.clip(np.nan_to_num(change), -top, top), cmin=-top, cmax=top, colorscale=theme.SIGNED_CARDS)
    inside = dict(text=labels, textposition="inside", insidetextanchor="middle", constraintext="none", textangle=0)
    look = dict(
        marker=color | dict(colorbar=theme.color_bar(value_label)), textfont=dict(family=theme.MONO, size=12.5, color=theme.DARK), **inside
    )
    fig = go.Figure(theme.across([width - 0.3 for width in widths], lines, words, base=starts, width=0.84, **look))
    count = max(lines, default=0) + 1
    line_axes(fig, [lines.index(line) for line in range(count)] if len(lines) else [], LETTERS, "the text")
    return theme.titled(fig, title, subtitle, 180 + max(30 * count, 130), not_drawn(change, missing="no prediction"))


def layout(widths: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Words of these widths in lines of at most LETTERS: each one's line, start and width."""
    lines, starts, line, at = [], [], 0, 0
    for width in widths:
        if at + width > LETTERS and at:
            line, at = line + 1, 0
        lines.append(line)
        starts.append(at)
        at += width
    return lines, starts, list(widths)


def line_axes(fig: go.Figure, first: Sequence[int], width: float, name: str) -> None:
    """Lines of a text from top to bottom, each with the number of its first token."""
    fig.update_xaxes(title_text=name, range=[-0.6, width], showticklabels=False, **theme.BARE)
    fig.update_yaxes(**theme.label_axis([str(token) for token in first], "line starts at token", range=[len(first) - 0.4, -0.6]))


def questions(
    tokens: Sequence[str], answers: Sequence[str | None], title: str, predicted: Sequence[str | None] | None = None, subtitle: str = ""
) -> go.Figure:
    """The sequence in lines of 16 tokens; below each one that is asked for, the answer; its cell is coloured.

    Args:
        tokens: one label for each position. answers: the right answer there, None where nothing is asked.
        predicted: what a model answers, where something is asked: below the token, and below a wrong answer the right one in
            parentheses. None: no model, and the right answers are shown.

    Raises ValueError if the lengths differ.
    """
    must_match("answers", answers, len(tokens))
    must_match("predicted", tokens if predicted is None else predicted, len(tokens))
    by_model = predicted is not None
    kinds = [kind_of(answer, word, by_model) for answer, word in zip(answers, predicted or answers)]
    hovers = [question_hover(*entry) for entry in zip(positions(tokens), answers, predicted or answers, kinds)]
    texts = [question_cell(*entry) for entry in zip(tokens, answers, predicted or answers, kinds)]
    fig = go.Figure()
    for kind in (kind for kind in KINDS if kind in kinds):
        at, (color, words) = [i for i, other in enumerate(kinds) if other == kind], KINDS[kind]
        look = dict(mode="markers+text", name=words, marker=dict(symbol="square", size=45, color=color, line_width=0))
        look |= dict(textfont=dict(family=theme.MONO, size=11.5, color=theme.DARK), hovertemplate="%{customdata}<extra></extra>")
        place = dict(x=[i % ACROSS for i in at], y=[i // ACROSS for i in at])
        fig.add_trace(go.Scatter(**place, text=[texts[i] for i in at], customdata=[hovers[i] for i in at], **look))
    line_axes(fig, range(0, len(tokens), ACROSS), ACROSS - 0.4, f"the sequence, {ACROSS} tokens a line")
    return theme.titled(fig, title, subtitle, 220 + 52 * -(-len(tokens) // ACROSS), showlegend=True, legend_itemsizing="trace")


def kind_of(answer: str | None, predicted: str | None, by_model: bool) -> str:
    """Which of KINDS a cell is."""
    if answer is None:
        return "read"
    return "asked" if not by_model else "right" if predicted == answer else "wrong"


def question_cell(token: str, answer: str | None, predicted: str | None, kind: str) -> str:
    """The words of a cell: the token, what is answered, and the right answer where that was another."""
    lines = {"read": [], "asked": [answer], "right": [predicted], "wrong": [predicted]}[kind]
    below = f"<br>({short(answer, 5)})" if kind == "wrong" else ""
    return short(token, 6) + "".join(f"<br><b>{short(line, 6)}</b>" for line in lines) + below


def question_hover(place: str, answer: str | None, predicted: str | None, kind: str) -> str:
    """The same in a sentence, nothing cut."""
    if kind == "read":
        return f"{place}<br>nothing is asked"
    judged = {"asked": "", "right": "<br>the model says so", "wrong": f"<br>the model says <b>{wrapped(predicted)}</b>: wrong"}[kind]
    return f"{place}<br>asked, the right answer is <b>{wrapped(answer)}</b>{judged}"
