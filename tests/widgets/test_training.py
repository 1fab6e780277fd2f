"""A run's panel shows its rows, as they come, and not more often than it was asked."""

import numpy as np
import pytest

from zamba_lab import widgets
from zamba_lab.widgets.panel import PLOTLY


def row(step: int, **more) -> dict:
    return {"step": step, "tokens": 100 * step, "loss": 5.0 - 0.1 * step, "seconds": 0.5, **more}


def shown(panel: widgets.TrainingPanel) -> list[dict]:
    return [output.outputs[0]["data"][PLOTLY] for output in panel.outputs]


def test_it_shows_every_loss_their_mean_and_the_evaluations_there_are():
    panel = widgets.TrainingPanel(steps=40, title="phase 1", every=0)
    for step in range(1, 41):
        panel(row(step, **({"code_bits_per_byte": 2.0, "prose_bits_per_byte": None} if step % 20 == 0 else {})))
    each, mean = panel.loss().data
    np.testing.assert_allclose(each.y, [5.0 - 0.1 * step for step in range(1, 41)])
    np.testing.assert_allclose(mean.y[0], (each.y[0] + each.y[1]) / 2)  # over a twentieth: two steps
    assert mean.x[0] == 2 and mean.x[-1] == 40
    (code,) = panel.held_out().data
    assert code.name == "code" and tuple(code.x) == (20, 40)
    loss, held_out = shown(panel)
    assert loss["layout"]["title"]["subtitle"]["text"] == "step 40, 200 tokens a second"
    assert loss["layout"]["xaxis"]["range"] == held_out["layout"]["xaxis"]["range"] == [0, 40]


def test_between_two_drawings_lies_the_time_asked_for_but_evaluations_and_the_end_show_at_once(monkeypatch):
    now, drawn = [0.0], []
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    panel = widgets.TrainingPanel(steps=5, every=10)
    panel.draw = lambda real=panel.draw: (drawn.append(panel.rows[-1]["step"]), real())
    for step in range(1, 6):
        now[0] += 4
        panel(row(step, **({"code_bits_per_byte": 2.0} if step == 2 else {})))
    assert drawn == [2, 5]


@pytest.mark.parametrize("steps", [None, 7])
def test_before_the_first_step_it_says_so_and_a_run_that_goes_on_begins_with_what_was(steps):
    assert shown(widgets.TrainingPanel(steps))[0]["layout"]["title"]["subtitle"]["text"] == "not begun"
    panel = widgets.TrainingPanel(steps, rows=[row(1), row(2)])
    assert "step 2" in shown(panel)[0]["layout"]["title"]["subtitle"]["text"]


def test_a_long_run_stays_light():
    panel = widgets.TrainingPanel(rows=[row(step) for step in range(1, 20001)])
    assert all(len(trace.x) <= 1300 for trace in panel.loss().data)
