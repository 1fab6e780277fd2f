"""Laws of checkpoint files: whole or not there, the newest few kept, a corrupt one known and passed over."""

import errno
import os
import resource
import sys

import pytest
import torch
from train.tiny import periodic, tiny_model

from zamba_lab.train import Mixture, TrainConfig, files
from zamba_lab.train.batches import micro_batches
from zamba_lab.train.state import fill, state
from zamba_lab.train.step import adamw, train_step

CONFIG = TrainConfig(steps=6, batch=2, length=16, schedule="constant")
CONTENT = {"step": 3, "model": {"a": torch.arange(50_000.0)}, "run": {"lr": 0.1, "name": "x"}}


def corrupt(file, at: int = 5000) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


def test_what_was_written_is_read_and_the_newest_stay(tmp_path):
    for step in (5, 10, 100, 20):
        files.write(tmp_path, step, CONTENT | {"step": step}, keep=2)
    assert [step for step, _ in files.checkpoints(tmp_path)] == [20, 100] and len(list(tmp_path.iterdir())) == 2
    found = files.newest_valid(tmp_path, pytest.fail)
    assert found["step"] == 100 and found["run"] == CONTENT["run"]
    assert torch.equal(found["model"]["a"], CONTENT["model"]["a"])
    assert files.at_step(tmp_path, 20)["step"] == 20 and files.at_step(tmp_path, None)["step"] == 100


@pytest.mark.parametrize("how", ["one bit", "cut off", "empty"])
def test_a_corrupt_last_checkpoint_is_passed_over_and_said(tmp_path, how):
    files.write(tmp_path, 1, CONTENT | {"step": 1}, keep=3)
    last = files.write(tmp_path, 2, CONTENT | {"step": 2}, keep=3)
    corrupt(last) if how == "one bit" else os.truncate(last, 0 if how == "empty" else 9000)
    said = []
    assert files.newest_valid(tmp_path, said.append)["step"] == 1
    assert len(said) == 1 and last.name in said[0] and "is corrupt" in said[0] and "continues from the one before" in said[0]
    assert not last.exists() and (tmp_path / f"corrupt-{last.name}").exists(), "set aside, not destroyed"
    assert files.newest_valid(tmp_path, pytest.fail)["step"] == 1


def test_if_all_are_corrupt_nothing_is_guessed_and_nothing_moved(tmp_path):
    assert files.newest_valid(tmp_path, pytest.fail) is None
    for step in (1, 2):
        corrupt(files.write(tmp_path, step, CONTENT, keep=2))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(files.CorruptCheckpoint, match="no checkpoint in .* can be used: .*000000002-.*000000001-"):
        files.newest_valid(tmp_path, pytest.fail)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_keeps_the_newest_valid_and_says_how_much_is_needed(tmp_path, monkeypatch):
    first = files.write(tmp_path, 1, CONTENT, keep=2)
    monkeypatch.setattr(files, "open", lambda file, mode: open("/dev/full" if mode == "wb" else file, mode), raising=False)
    with pytest.raises(OSError, match=r"step 2 could not be written \(No space left on device\): it needs 2\d\d,\d{3} bytes") as found:
        files.write(tmp_path, 2, CONTENT, keep=2)
    assert found.value.errno == errno.ENOSPC and first.name in str(found.value) and "bytes free" in str(found.value)
    assert list(tmp_path.iterdir()) == [first]


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of this kind")
@pytest.mark.parametrize("room", [0, 1000, 100_000])
def test_a_file_that_stops_halfway_leaves_nothing_behind(tmp_path, room):
    first = files.write(tmp_path, 1, CONTENT, keep=2)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(OSError, match="File too large.*it needs 2"):
            files.write(tmp_path, 2, CONTENT, keep=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == [first] and files.newest_valid(tmp_path, pytest.fail)["step"] == 3


def test_a_step_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must hold a checkpoint: it has none"):
        files.at_step(tmp_path, None)
    files.write(tmp_path, 7, CONTENT, keep=2)
    with pytest.raises(ValueError, match=r"must hold a checkpoint of step 8: it has those of steps \[7\]"):
        files.at_step(tmp_path, 8)


def test_a_state_is_put_where_the_weights_are():
    """The count of steps, too: a fused AdamW takes it from its parameter's device."""
    model = tiny_model()
    optimiser = adamw(model, CONFIG)
    train_step(model, optimiser, micro_batches(Mixture.of(periodic(400)), 0, CONFIG, 1), 1e-2, 1.0)
    content = state(model, optimiser, 1, {})
    there = tiny_model().to("meta")
    moved = adamw(there, CONFIG)
    fill(there, moved, content)
    assert {value.device.type for held in moved.state.values() for value in held.values()} == {"meta"}
    again = tiny_model(seed=1)
    other = adamw(again, CONFIG)
    fill(again, other, content)
    for parameter, same in zip(model.parameters(), again.parameters()):
        assert torch.equal(parameter, same)
        assert all(torch.equal(optimiser.state[parameter][name], value) for name, value in other.state[same].items())
