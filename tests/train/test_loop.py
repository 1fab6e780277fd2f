"""Laws of the loop: it learns, it stops politely, and it goes on as if it had never stopped."""
import os
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from train.tiny import periodic, random_packed, tiny_model
from zamba_lab.train import TrainConfig, train
from zamba_lab.train.loop import train_step
from zamba_lab.train.optimiser import adamw, decayed
from zamba_lab.train.state import FILE, read_log

CONFIG = TrainConfig(steps=8, batch=2, length=16, lr=1e-2, warmup=2, decay=0.5, evaluate_every=3, checkpoint_every=3)
TOKENS, VALIDATION = periodic(400), random_packed(60)


class Killed(Exception):
    """Stands for a kill that leaves no time for anything."""


def on_step(model, number: int, action) -> None:
    """Do something in the midst of the `number`-th step, counted from 0 (evaluations do not count)."""
    steps = iter(range(10**6))

    def hook(module, arguments):
        if module.training and next(steps) == number:
            action()

    model.register_forward_pre_hook(hook)


def kill() -> None:
    raise Killed


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def rows(folder) -> list:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in read_log(folder / "log.csv")]


@pytest.mark.parametrize("action, error, at, kept", [(kill, Killed, 5, 3), (interrupt, KeyboardInterrupt, 4, 5),
                                                      (interrupt, KeyboardInterrupt, 0, 1)])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path, action, error, at, kept):
    whole = train(tiny_model(), TOKENS, CONFIG, tmp_path / "whole", VALIDATION)
    stopped = tiny_model()
    on_step(stopped, at, action)
    with pytest.raises(error):
        train(stopped, TOKENS, CONFIG, tmp_path / "parts", VALIDATION)
    assert torch.load(tmp_path / "parts" / FILE)["step"] == kept
    continued = train(tiny_model(seed=99), TOKENS, CONFIG, tmp_path / "parts", VALIDATION)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, continued.state_dict()[name]), name
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")


def test_a_finished_run_is_read_back_and_not_repeated(tmp_path):
    trained = train(tiny_model(), TOKENS, CONFIG, tmp_path)
    again = train(tiny_model(seed=1), TOKENS, CONFIG, tmp_path)
    assert all(map(torch.equal, trained.state_dict().values(), again.state_dict().values()))
    assert len(rows(tmp_path)) == CONFIG.steps and not again.training


def test_a_kill_while_saving_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    train(tiny_model(), TOKENS, CONFIG, tmp_path)
    before = (tmp_path / FILE).read_bytes()
    monkeypatch.setattr(os, "fsync", lambda number: kill())
    (tmp_path / FILE).rename(tmp_path / "aside")
    with pytest.raises(Killed):
        train(tiny_model(), TOKENS, CONFIG, tmp_path)
    assert not (tmp_path / FILE).exists() and (tmp_path / "aside").read_bytes() == before


def test_the_loss_falls_on_what_can_be_learnt(tmp_path):
    train(tiny_model(), TOKENS, replace(CONFIG, steps=60, checkpoint_every=60), tmp_path)
    losses = [float(row["loss"]) for row in rows(tmp_path)]
    assert losses[0] > 3.0 and losses[-1] < 0.3, losses[::10]


@pytest.mark.parametrize("change, says", [({"lr": 0.5}, "train.lr was 0.01, is 0.5"), ({"seed": 3}, "train.seed was 0, is 3")])
def test_another_run_in_the_same_folder_is_refused(tmp_path, change, says):
    train(tiny_model(), TOKENS, CONFIG, tmp_path)
    with pytest.raises(ValueError, match=says):
        train(tiny_model(), TOKENS, replace(CONFIG, **change), tmp_path)
    with pytest.raises(ValueError, match="tokens was 400, is 399; tokens.crc32 was"):
        train(tiny_model(), TOKENS[1:], CONFIG, tmp_path)


def test_the_end_may_be_moved_while_the_rate_is_the_same(tmp_path):
    longer = replace(CONFIG, steps=12, decay=0.25)
    whole = train(tiny_model(), TOKENS, longer, tmp_path / "whole")
    stopped = tiny_model()
    on_step(stopped, 4, interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(stopped, TOKENS, CONFIG, tmp_path / "parts")
    moved = train(tiny_model(), TOKENS, longer, tmp_path / "parts")
    assert all(map(torch.equal, whole.state_dict().values(), moved.state_dict().values()))
    with pytest.raises(ValueError, match="train.decay was 0.25, is 0.5"):
        train(tiny_model(), TOKENS, replace(longer, decay=0.5), tmp_path / "parts")


def test_a_broken_checkpoint_is_refused(tmp_path):
    (tmp_path / FILE).write_bytes(b"no checkpoint")
    with pytest.raises(ValueError, match="must be a checkpoint of this loop.*13 bytes"):
        train(tiny_model(), TOKENS, CONFIG, tmp_path)


def test_a_loss_that_is_no_number_stops_the_run_and_changes_nothing(tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model.final_norm.weight[0] = torch.nan
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(FloatingPointError, match="step 0 has loss nan"):
        train(model, TOKENS, CONFIG, tmp_path)
    assert not (tmp_path / FILE).exists()
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0, equal_nan=True)


def test_a_second_process_in_the_folder_is_refused_and_changes_nothing(tmp_path):
    train(tiny_model(), TOKENS, CONFIG, tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in (FILE, "log.csv")}
    command = f"from filelock import FileLock; lock = FileLock({str(tmp_path / 'lock')!r}); lock.acquire(); print('held', flush=True); input()"
    other = subprocess.Popen([sys.executable, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(ValueError, match="one process trains in a folder at a time"):
            train(tiny_model(), TOKENS, replace(CONFIG, steps=9, decay=0.0, warmup=2), tmp_path)
        other.communicate("\n")
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


def test_signals_are_given_back(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    train(tiny_model(), TOKENS, CONFIG, tmp_path)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_only_matrices_are_decayed():
    model = tiny_model()
    names = decayed(model)
    assert all(model.get_parameter(name).ndim == 2 for name in names)
    assert {"layers.0.mamba.in_proj.weight", "layers.1.invocation.link.weight", "shared_blocks.0.attention.q.weight"} <= names
    spared = dict(model.named_parameters()).keys() - names
    assert {"embedding.weight", "final_norm.weight", "layers.0.mamba.A_log", "layers.0.mamba.D", "layers.0.mamba.dt_bias",
            "layers.0.mamba.conv_weight"} <= spared


def test_the_optimiser_has_each_parameter_once():
    model = tiny_model()
    groups = adamw(model, CONFIG).param_groups
    assert sorted(id(p) for group in groups for p in group["params"]) == sorted(id(p) for p in model.parameters())


def test_the_shared_path_has_its_share_of_the_learning_rate():
    model = tiny_model()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    ids = torch.randint(model.config.vocab_size, (2, 9))
    optimiser = adamw(model, replace(CONFIG, shared_lr=0.25))
    train_step(model, optimiser, (ids[:, :-1], ids[:, 1:]), lr=1e-3, clip=1.0)
    for group in optimiser.param_groups:
        ours = {".invocation." in names[id(p)] or names[id(p)].startswith("shared_blocks.") for p in group["params"]}
        assert ours == {group["lr"] == 2.5e-4} and group["lr"] in (1e-3, 2.5e-4)
    assert {group["lr"] for group in optimiser.param_groups} == {1e-3, 2.5e-4}
