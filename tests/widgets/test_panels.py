"""A panel's figure is that of its controls: it follows them, and asks the model no more than once for each answer."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from zamba_lab import lens, widgets
from zamba_lab.config import ZambaConfig
from zamba_lab.model import Zamba
from zamba_lab.widgets.panel import PLOTLY

CONFIG = ZambaConfig(
    vocab_size=50, d_model=16, n_layers=4, d_state=4, headdim=8, hybrid_layers=(0, 1, 3), attn_heads=4, d_mlp=24, lora_rank=3
)
PANELS = (
    widgets.states_panel,
    widgets.attention_panel,
    widgets.decay_panel,
    widgets.switch_panel,
    widgets.dimensions_panel,
    widgets.contents_panel,
    widgets.mixer_panel,
    widgets.drift_panel,
    widgets.xray_panel,
)


def random_model(config: ZambaConfig = CONFIG) -> tuple[Zamba, torch.Tensor]:
    torch.manual_seed(0)
    return Zamba(config), torch.randint(0, 50, (1, 9))


def shown(panel: widgets.Panel) -> dict:
    """The figure that the page is told to show."""
    (output,) = panel.output.outputs
    return output["data"][PLOTLY]


def other_value(control):
    """A value that the control does not have now."""
    values = [value for _, value in control.options] if hasattr(control, "options") else range(control.max + 1)
    return next((value for value in values if value != control.value), None)


@pytest.mark.parametrize("make", PANELS)
@pytest.mark.parametrize("mixer", ["mamba1", "mamba2"])
def test_every_control_changes_what_is_shown(make, mixer):
    panel = make(*random_model(replace(CONFIG, mixer=mixer)))
    for name, control in panel.controls.items():
        before = shown(panel)
        control.value = other_value(control)
        assert shown(panel) != before, name
        assert shown(panel)["layout"]["title"] == panel.figure.to_plotly_json()["layout"]["title"]


@pytest.mark.parametrize("make", PANELS)
def test_every_control_says_what_it_is_and_can_be_tabbed_to(make):
    panel = make(*random_model())
    for control in panel.controls.values():
        assert control.description and control.tooltip
        assert control.tabbable is not False
        assert getattr(control, "label", "something") is not None, "a Dropdown that shows no choice"


def test_states_panel_shows_the_norms_of_the_head():
    model, ids = random_model()
    panel = widgets.states_panel(model, ids)
    panel.controls["head"].value = 3
    np.testing.assert_allclose(panel.figure.data[0].z, lens.state_norms(model, ids)[:, 0, :, 3], rtol=1e-6)
    assert "head 3" in panel.figure.layout.title.text


def test_attention_panel_shows_the_block_at_its_invocations():
    model, ids = random_model()
    panel = widgets.attention_panel(model, ids)
    maps = lens.attention_by_invocation(model, ids, 0).probs[:, 0]
    assert [note.text for note in panel.figure.layout.annotations][:3] == [
        "invocation 0, head 0",
        "invocation 2, head 0",
        "invocation 0, head 1",
    ]
    np.testing.assert_allclose(panel.figure.data[2].customdata, maps[0, 1], rtol=1e-6)
    panel.controls["head"].value = 2
    assert [note.text for note in panel.figure.layout.annotations] == ["invocation 0, depth 0", "invocation 2, depth 3"]
    panel.controls["block"].value = 1
    (trace,) = panel.figure.data
    np.testing.assert_allclose(trace.customdata, lens.attention_by_invocation(model, ids, 1).probs[0, 0, 2], rtol=1e-6)


def test_decay_panel_shows_the_half_lives_of_the_layer():
    model, ids = random_model()
    panel = widgets.decay_panel(model, ids)
    panel.controls["depth"].value = 2
    panel.controls["head"].value = 1
    np.testing.assert_allclose(panel.figure.data[-1].y, lens.decay(model, ids).half_life[2, 0, :, 1], rtol=1e-6)


def test_switch_panel_shows_the_change_and_computes_each_once(monkeypatch):
    model, ids = random_model()
    calls, real = [], lens.effect
    monkeypatch.setattr(lens, "effect", lambda *args, **more: calls.append(args[2].name) or real(*args, **more))
    panel = widgets.switch_panel(model, ids)
    panel.controls["part"].value = "adapter"
    panel.controls["where"].value = 1
    panel.controls["part"].value = "invocation"
    panel.controls["where"].value = "every"
    where = [("invocation", None), ("adapter", None), ("adapter", 1), ("invocation", 1)]
    assert calls == [lens.mean(part, number, ids).name for part, number in where]
    change = real(model, ids, lens.mean("invocation", None, ids)).change[0]
    np.testing.assert_allclose(panel.figure.data[0].marker.color[1:9], change, atol=1e-6)


def test_tokens_label_themselves_without_a_tokenizer():
    model, ids = random_model()
    assert widgets.states_panel(model, ids).figure.layout.xaxis.ticktext[0] == str(int(ids[0, 0]))
    assert widgets.states_panel(model, ids, list("abcdefghi")).figure.layout.xaxis.ticktext[0] == "a"


def test_contents_panel_shows_the_shares_in_the_state_after_the_token():
    model, ids = random_model()
    panel = widgets.contents_panel(model, ids)
    assert panel.controls["after"].value == 8
    for name, value in (("depth", 2), ("head", 1), ("after", 5)):
        panel.controls[name].value = value
    shares = panel.figure.data[0].marker.color
    np.testing.assert_allclose(shares, lens.contents(model, ids, 2, 5).share[0, 1], rtol=1e-5)  # of 6 tokens


def test_mixer_panel_shows_a_head_beside_all_of_them():
    model, ids = random_model()
    panel = widgets.mixer_panel(model, ids)
    panel.controls["depth"].value = 3
    panel.controls["head"].value = 2
    shares = lens.mixer_matrix(model, ids, 3).shares()[0]
    for trace, expected in zip(panel.figure.data, (shares[2], shares.sum(0))):
        np.testing.assert_allclose(np.nan_to_num(trace.z), expected, rtol=1e-5, atol=1e-7)


def test_drift_panel_shows_the_table_of_the_block_and_says_what_makes_the_difference():
    model, ids = random_model()
    panel = widgets.drift_panel(model, ids)
    panel.controls["point"].value = "the link's output"
    found = lens.drift(model, ids, 0, "link_out")
    np.testing.assert_allclose(panel.figure.data[0].z, found.distance[..., 0], rtol=1e-5)
    assert f"{100 * float(found.inputs / found.total):.0f} % by the input" in panel.figure.layout.title.subtitle.text
    panel.controls["block"].value = 1  # used once: nothing to compare, no division by 0
    assert panel.figure.data[0].z.shape == (1, 1)


def test_xray_panel_shows_the_four_parts_of_a_score():
    model, ids = random_model()
    panel = widgets.xray_panel(model, ids)
    panel.controls["invocation"].value = 2
    panel.controls["head"].value = 1
    parts = lens.score_parts(model, ids, 2).parts[:, :, 0, 1].flatten(0, 1)
    for trace, expected in zip(panel.figure.data, parts):
        np.testing.assert_allclose(np.nan_to_num(trace.z), expected, rtol=1e-5, atol=1e-6)
    assert panel.figure.layout.annotations[2].text == "query from embedding, key from stream"
    assert "do not read the token embeddings" in widgets.xray_panel(*random_model(replace(CONFIG, concat_embedding=False))).sentence


TRANSFORMER = replace(CONFIG, mixer="attention", n_shared_blocks=0)


@pytest.mark.parametrize("make", PANELS)
@pytest.mark.parametrize("config", [replace(CONFIG, n_shared_blocks=0), TRANSFORMER], ids=["mamba2", "transformer"])
def test_where_a_model_lacks_the_part_a_sentence_says_so(make, config):
    """Every panel of every kind of model is a panel or a sentence, and which of the two follows from the model's parts."""
    panel = make(*random_model(config))
    about_blocks = make in (widgets.attention_panel, widgets.switch_panel, widgets.drift_panel, widgets.xray_panel)
    if about_blocks or config is TRANSFORMER:
        assert isinstance(panel, widgets.Absent) and panel.sentence in panel.value
        assert ("shared attention block" if about_blocks else "no SSM states") in panel.sentence
    else:
        assert panel.figure.data


def test_a_word_beside_the_controls_says_that_a_panel_computes():
    seen, panel = [], None

    def draw(head):
        seen.append(panel.busy.value if panel else "")
        if head == 2:
            raise ValueError("no such head")
        return widgets.states_panel(*random_model()).figure

    panel = widgets.Panel(draw, head=widgets.panel.slider("head", 3, "which"))
    for head in (1, 2):
        with contextlib.suppress(ValueError):
            panel.controls["head"].value = head
        assert seen[-1] == widgets.panel.BUSY and panel.busy.value == ""  # also after an error


@pytest.mark.parametrize("make", PANELS)
def test_a_batch_is_refused(make):
    model, ids = random_model()
    with pytest.raises(ValueError, match=r"one sequence, ids of shape \(1, length\): got \(2, 9\)"):
        make(model, ids.repeat(2, 1))
