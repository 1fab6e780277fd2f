"""The positive control at `ci` size: while this fails, no result on recall says anything of an architecture."""

import json

import pytest
import torch

import zamba_lab as zl
from zamba_lab import tasks
from zamba_lab.recipes import positive_control as control


@pytest.mark.parametrize("name", ["transformer", "mamba2", "hybrid"])
def test_three_small_models_solve_recall(name):
    """Three small models solve recall of four pairs, to 99 % on new sequences, twice. Some seconds each."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    (found,) = control.positive_control(seeds=(0,), names=(name,))
    torch.set_num_threads(threads)
    assert found.solved_at is not None and found.solved_at <= 600, found.curve
    assert found.accuracy >= control.SOLVED
    assert all(control.HEARD[0] <= ratio <= control.HEARD[1] for ratio in found.heard.values()), control.describe(found.heard)


def test_a_training_repeats_bit_by_bit():
    task = tasks.get("mqar", length=16, kv=2)
    arm = control.arms(64)["hybrid"].changed(dict(d_model=32), dict(steps=8, batch=8, schedule="constant"))
    lines: list[str] = []
    first, second = (control.solve("hybrid", arm, task, seed=4, every=4, see=lines.append) for _ in range(2))
    assert first.curve == second.curve and first.heard == second.heard
    assert (first.solved_at, first.steps) == (None, 8) and [step for step, _ in first.curve] == [4, 8]
    assert len(lines) == 6 and lines[:3] == lines[3:] and lines[1].startswith("hybrid seed 4 step 4: loss ")


def test_how_loud_a_block_is_is_said_before_the_first_step(monkeypatch):
    """So that a training that cannot succeed can be stopped at once."""
    task, lines = tasks.get("mqar", length=16, kv=2), []
    arm = control.arms(64)["hybrid"].changed(dict(d_model=32, link_gain=0.01), dict(steps=8, batch=8, schedule="constant"))
    monkeypatch.setattr(control, "train_step", lambda *_: pytest.fail(f"a step was made, and all that was said is {lines}"))
    with pytest.raises(KeyboardInterrupt):
        control.solve("hybrid", arm, task, seed=4, see=lambda line: lines.append(line) or (_ for _ in ()).throw(KeyboardInterrupt))
    assert len(lines) == 1 and lines[0].startswith("hybrid seed 4 RMS(link out) / RMS(stream) at the start: layer 1: 0.0")
    assert lines[0].endswith("(!)")


def test_what_is_heard_is_the_ratio_of_the_traced_sizes():
    torch.manual_seed(0)
    config = zl.ZambaConfig(
        vocab_size=64, d_model=16, n_layers=4, hybrid_layers=(1, 3), attn_heads=2, d_mlp=16, headdim=16, d_state=4, lora_rank=2
    )
    model, ids = zl.Zamba(config), tasks.get("mqar").batch(0, 0, 8).ids
    trace = zl.Trace(keep=["layers.3.shared.link_out", "layers.3.resid_in"])
    model(ids, trace=trace)
    link, stream = (trace[name].square().mean().sqrt().item() for name in ("layers.3.shared.link_out", "layers.3.resid_in"))
    loud = control.heard(model, ids)
    assert list(loud) == [1, 3] and loud[3] == pytest.approx(link / stream, rel=1e-5)


def test_a_quiet_link_is_marked_and_no_block_is_said():
    assert control.describe({1: 0.01, 3: 1.0}).endswith("layer 1: 0.010 (!), layer 3: 1.000")
    assert control.describe({}).endswith("no shared block")
    model = zl.Zamba(control.arms(64)["mamba2"].model)
    assert control.heard(model, tasks.get("mqar").batch(0, 0, 2).ids) == {}


def test_the_command_prints_a_line_a_training_and_fails_while_something_is_unsolved(monkeypatch, capsys):
    found = control.Outcome("hybrid", 1, None, 0.26, 1000, 40.0, {1: 0.004}, ((1000, 0.26),))
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
