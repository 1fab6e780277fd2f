"""A study's panel shows what the study found, for the arms and seeds that are chosen."""

import pytest
from ablate.records import drawn
from ablate.tiny import study

from zamba_lab import widgets
from zamba_lab.ablate import Store, report


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    made = study(seeds=range(9), axes={"conv": [False], "d_state": [8, 16]})
    store = Store(tmp_path_factory.mktemp("study") / "store")
    base = [0.50 + 0.02 * k for k in range(9)]
    drawn(made, {"base": base, "conv=off": [one - 0.3 for one in base], "d_state=8": base, "d_state=16": base}, store)
    return report(made, store)


def test_all_arms_are_shown_at_first_then_those_of_an_axis(found):
    panel = widgets.study_panel(found)
    assert list(panel.figure.layout.yaxis.ticktext) == ["conv=off", "d_state=8", "d_state=16"]
    panel.controls["axis"].value = "d_state"
    assert list(panel.figure.layout.yaxis.ticktext) == ["d_state=8", "d_state=16"]
    panel.controls["view"].value = "learning curves"
    assert {trace.name for trace in panel.figure.data if trace.name} == {"base", "d_state=8", "d_state=16"}


def test_with_fewer_seeds_the_verdict_goes(found):
    panel = widgets.study_panel(found, axis="conv")
    assert "<br>less" in panel.figure.data[0].customdata[0] and "9 seeds" in panel.figure.layout.title.subtitle.text
    panel.controls["seeds"].value = 4
    assert "no verdict (5 seeds, 6 needed)" in panel.figure.data[0].customdata[0]
    panel.controls["seeds"].value = 0
    assert "1 seed, paired" in panel.figure.layout.title.subtitle.text


def test_the_colours_of_the_verdicts_are_in_the_legend(found):
    figure = widgets.study_panel(found).figure
    assert figure.layout.showlegend
    assert len({trace.marker.color for trace in figure.data}) == len({trace.name for trace in figure.data}) == len(figure.data) >= 2


@pytest.mark.parametrize("view", ["accuracy", "loss", "learning curves", "recall against memory", "quality against work"])
def test_every_view_is_a_figure_of_the_arms_that_are_there(found, view):
    panel = widgets.study_panel(found.only(["conv=off"]))
    panel.controls["view"].value = view
    assert panel.figure.data and panel.figure.layout.title.text
