"""The positive control at `ci` size: while this fails, no result on recall says anything of an architecture."""

import json

import pytest
import torch
from processes import only_long

import zamba_lab as zl
from zamba_lab import lens, tasks
from zamba_lab.recipes import positive_control as control


@pytest.mark.parametrize("name", [*(pytest.param(name, marks=only_long) for name in ("transformer", "mamba2")), "hybrid"])
def test_three_small_models_solve_recall(name):
    """Three small models solve recall of four pairs, to 99 % on new sequences, twice. Some seconds each."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    (found,) = control.positive_control(seeds=(0,), names=(name,))
    torch.set_num_threads(threads)
    assert found.solved_at is not None and found.solved_at <= 600, found.curve
    assert found.accuracy >= control.SOLVED
    assert all(control.RATIOS[0] <= ratio <= control.RATIOS[1] for ratio in found.link_ratios), control.describe(found.link_ratios)


def test_a_training_repeats_bit_by_bit():
    task = tasks.get("mqar", length=16, kv=2)
    arm = control.arms(64)["hybrid"].changed(dict(d_model=32), dict(steps=8, batch=8, schedule="constant"))
    lines: list[str] = []
    first, second = (control.solve("hybrid", arm, task, seed=4, every=4, see=lines.append) for _ in range(2))
    assert first.curve == second.curve and first.link_ratios == second.link_ratios
    assert (first.solved_at, first.steps) == (None, 8) and [step for step, _ in first.curve] == [4, 8]
    assert len(lines) == 6 and lines[:3] == lines[3:] and lines[1].startswith("hybrid seed 4 step 4: loss ")


def test_the_link_ratios_are_said_before_the_first_step(monkeypatch):
    """So that a training that cannot succeed can be stopped at once."""
    task, lines = tasks.get("mqar", length=16, kv=2), []
    arm = control.arms(64)["hybrid"].changed(dict(d_model=32, link_gain=0.01), dict(steps=8, batch=8, schedule="constant"))
    monkeypatch.setattr(control, "train_step", lambda *_: pytest.fail(f"a step was made, and all that was said is {lines}"))
    with pytest.raises(KeyboardInterrupt):
        control.solve("hybrid", arm, task, seed=4, see=lambda line: lines.append(line) or (_ for _ in ()).throw(KeyboardInterrupt))
    assert len(lines) == 1 and lines[0].startswith("hybrid seed 4 RMS(link out) / RMS(stream) at the start: invocation 0: 0.0")
    assert lines[0].endswith("(!)")


def test_a_quiet_link_is_marked_and_no_block_is_said():
    assert control.describe((0.01, 1.0)).endswith("invocation 0: 0.010 (!), invocation 1: 1.000")
    assert control.describe(()).endswith("no shared block")
    model = zl.Zamba(control.arms(64)["mamba2"].model)
    assert lens.link_ratios(model, tasks.get("mqar").batch(0, 0, 2).ids) == []


def test_the_command_prints_a_line_a_training_and_fails_while_something_is_unsolved(monkeypatch, capsys):
    found = control.Outcome("hybrid", 1, None, 0.26, 1000, 40.0, (0.004,), ((1000, 0.26),))
    monkeypatch.setattr(control, "positive_control", lambda seeds, names, see, **parts: iter([found]))
    assert control.main(["--seeds", "1", "--arms", "hybrid", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["solved_at"] is None
    assert control.main(["--seeds", "1"]) == 1
    assert "NOT solved in 1000 steps, 26.0%, 40.0 CPU-s; RMS" in capsys.readouterr().out


def test_an_arm_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="no arm rnn: there are transformer, mamba2, hybrid"):
        next(control.positive_control(names=("rnn",)))


def test_settings_are_read_by_part():
    found = control.settings(["task.kv=8", "model.link_gain=4.0", "training.schedule=wsd(warmup=10, decay=0.4)", "task.length=64"])
    assert found == {"task": {"kv": 8, "length": 64}, "model": {"link_gain": 4.0}, "training": {"schedule": "wsd(warmup=10, decay=0.4)"}}
    arm = control.arms(256)["hybrid"].changed(found["model"], found["training"])
    assert arm.model.link_gain == 4 and str(arm.training.schedule) == "wsd(warmup=10, decay=0.4, final=0.0)"
    for bad in ("kv=8", "tasks.kv=8", "task.kv", "task.=8"):
        with pytest.raises(ValueError, match="a change is written like task.kv=8"):
            control.settings([bad])
