"""The causal panels show the effects of their controls' choices, and ask once for each."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from variants import BASE, make_model, random_ids

from zamba_lab import lens, widgets
from zamba_lab.widgets.panel import PLOTLY

MODEL, IDS, OTHER = make_model(BASE), random_ids(BASE, b=1, l=9), random_ids(BASE, b=1, l=9, seed=3)
MAKE = {
    "lens": lambda: widgets.lens_panel(MODEL, IDS),
    "intervention": lambda: widgets.intervention_panel(MODEL, IDS, OTHER),
    "recall": lambda: widgets.recall_panel(MODEL, torch.arange(29).repeat(3), distances=(2, 9), count=3),
}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE.keys())
def test_every_control_changes_what_is_shown_and_says_what_it_is(make):
    panel = make()
    for name, control in panel.controls.items():
        before = panel.output.outputs[0]["data"][PLOTLY]
        control.value = next(value for _, value in control.options if value != control.value)
        assert panel.output.outputs[0]["data"][PLOTLY] != before, name
        assert control.description and control.tooltip and control.label is not None


def test_intervention_panel_shows_the_effect_and_its_controls_and_computes_each_once(monkeypatch):
    calls, real = [], lens.effect
    monkeypatch.setattr(lens, "effect", lambda *args, **more: calls.append(args[2].name) or real(*args, **more))
    panel = widgets.intervention_panel(MODEL, IDS, OTHER)
    for name, value in (("part", "mixer"), ("where", 2), ("how", "another text's"), ("how", "zero")):
        panel.controls[name].value = value
    means = [lens.mean("invocation", None, OTHER), lens.mean("mixer", None, OTHER), lens.mean("mixer", 2, OTHER)]
    assert calls == [change.name for change in [*means, lens.resample("mixer", 2, OTHER), lens.zero("mixer", 2)]]
    expected = real(MODEL, IDS, lens.zero("mixer", 2))
    np.testing.assert_allclose(panel.figure.data[0].marker.color[1:9], expected.change[0], atol=1e-9)
    assert f"{expected.control_change.mean():+.3f} from random" in panel.figure.layout.title.subtitle.text


def test_lens_panel_shows_the_words_and_recall_panel_the_losses():
    panel = MAKE["lens"]()
    found = lens.logit_lens(MODEL, IDS, lens.lens_sites(BASE, added=False))
    np.testing.assert_allclose(panel.figure.data[0].z, found.divergence[:, 0])
    assert panel.figure.data[0].text[2][4] == str(int(found.tokens[2, 0, 4, 0]))
    panel = MAKE["recall"]()
    panel.controls["distance"].value = 9
    found = lens.who_remembers(MODEL, torch.arange(29).repeat(3), (9,), 3)
    np.testing.assert_allclose(panel.figure.data[0].z, found.loss[0].mean(-1), atol=1e-9)


def test_a_model_without_invocations_has_its_own_parts():
    panel = widgets.intervention_panel(make_model(replace(BASE, n_shared_blocks=0)), IDS, OTHER)
    assert [value for _, value in panel.controls["part"].options] == ["mixer", "convolution"]
    transformer = make_model(replace(BASE, mixer="attention", n_shared_blocks=0))
    assert "none of the parts" in widgets.intervention_panel(transformer, IDS, OTHER).sentence
    assert widgets.lens_panel(transformer, IDS).figure.data
