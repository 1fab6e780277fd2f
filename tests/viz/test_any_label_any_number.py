"""Any label is drawn letter for letter and any number keeps its figure, in every function of `viz`: what plotly is told.

`tests/browser/test_any_label.py` reads the same back from a drawn page.
"""

import json
import re
from html import unescape

import numpy as np
import plotly.graph_objects as go
import pytest
from viz.hostile import FIGURES, LABELS, ONE, TWICE, arguments, draw, shown_labels

from zamba_lab import viz
from zamba_lab.viz import theme

OWN_MARKUP = re.compile(r"</?b>|<br>")  # all that the figures use
ENTITY = re.compile(r"&(amp|lt|gt|#36|#37);")
TEXTS = {"text", "ticktext", "name", "hovertemplate", "texttemplate", "customdata", "hovertext", "x", "y", "categoryarray"}


def strings(node, key=None):
    """Every string of a figure that plotly draws, with the name it stands under."""
    if isinstance(node, dict):
        for name, inner in node.items():
            yield from strings(inner, name if name in TEXTS else key if isinstance(inner, list) else name)
    elif isinstance(node, list):
        for inner in node:
            yield from strings(inner, key)
    elif isinstance(node, str) and key in TEXTS:
        yield key, node


@pytest.mark.parametrize("name", FIGURES)
def test_no_label_is_left_that_plotly_reads_as_markup(name):
    figure = json.loads(draw(name).to_json())
    figure["layout"].pop("template")
    for key, text in strings(figure):
        bare = ENTITY.sub("", OWN_MARKUP.sub("", re.sub(r"%\{[a-z0-9\[\]]+(:[^}]+)?\}|</?extra>", "", text) if "template" in key else text))
        assert not re.search(r"[<>&$\n]|%\{", bare), (key, text)


@pytest.mark.parametrize("name", FIGURES)
def test_every_label_is_somewhere_in_the_figure(name):
    drawn = " ".join(unescape(OWN_MARKUP.sub("", text)) for _, text in strings(json.loads(draw(name).to_json())))
    single, many = shown_labels(name)
    for label in [ONE + parameter for parameter in single] + (LABELS if many else []):
        assert label.replace("\n", "") in drawn, (name, label)


@pytest.mark.parametrize("name", FIGURES)
def test_equal_labels_are_separate_entries(name):
    """As many positions as labels on every axis that names them."""
    for axis in [*draw(name).select_xaxes(), *draw(name).select_yaxes()]:
        if axis.ticktext is not None:
            assert len(axis.ticktext) == len(set(axis.tickvals))
            assert axis.type != "category" or len(set(axis.categoryarray)) == len(axis.categoryarray) >= len(TWICE)


@pytest.mark.parametrize("name", FIGURES)
def test_numbers_that_are_not_finite_are_said_and_leave_signed_colours_centred_on_zero(name):
    figure = draw(name, bad=True)
    data = json.loads(figure.to_json(), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    takes_numbers = data != json.loads(draw(name).to_json())
    assert takes_numbers == (name != "questions")
    if takes_numbers:
        assert re.search(r"Not drawn as numbers: .*inf", figure.layout.title.subtitle.text), figure.layout.title.subtitle.text
    for low, high, scale in color_scales(figure):
        assert np.isfinite([low, high]).all() and low < high
        if any([color for _, color in scale] == [color for _, color in signed] for signed in (theme.DIVERGING, theme.SIGNED_CARDS)):
            assert low == -high
    for axis in [*figure.select_xaxes(), *figure.select_yaxes()]:
        assert axis.range is None or np.isfinite(axis.range).all()


def color_scales(figure: go.Figure):
    """(low, high, colours) of every scale in a figure that says where it ends."""
    for trace in figure.data:
        if isinstance(trace, go.Heatmap):
            yield trace.zmin, trace.zmax, trace.colorscale
        elif trace.marker.cmax is not None:
            yield trace.marker.cmin, trace.marker.cmax, trace.marker.colorscale


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_but_numbers_that_are_none_can_be_drawn(name):
    """Every array full of nan."""
    filled = {key: np.full_like(value, np.nan) if isinstance(value, np.ndarray) else value for key, value in arguments(name).items()}
    json.loads(getattr(viz, name)(**filled).to_json(), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
