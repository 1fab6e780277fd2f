"""The stop button of a notebook: the step is finished, the cell says where it stands, and the same cell goes on."""

import os
import time
from pathlib import Path

import pytest
import torch
from train.tiny import periodic, tiny_model

from zamba_lab.train import TrainConfig, read_metrics, train
from zamba_lab.train.files import at_step

CONFIG = TrainConfig(
    steps=60, batch=4, length=23, lr=1e-2, schedule="constant(warmup=2)", max_epochs=None, precision="float32", checkpoint_every=20
)
CELL = """
import time, torch
from train.test_notebook_interrupt import CONFIG
from train.tiny import periodic, tiny_model
from zamba_lab.train import train
torch.set_num_threads({threads})
train(tiny_model(seed={seed}), periodic(400), CONFIG, {folder!r}, on_row=[lambda row: time.sleep({pause})])
"""


@pytest.fixture
def kernel(monkeypatch):
    """A real one, without a notebook around it."""
    from jupyter_client.manager import start_new_kernel

    tests = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tests), str(tests.parent)]))
    manager, client = start_new_kernel(kernel_name="python3")
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_interrupted_in_a_kernel_the_same_cell_goes_on_to_the_same_bits(kernel, tmp_path):
    manager, client = kernel
    client.execute(CELL.format(seed=0, folder=str(tmp_path / "run"), pause=0.2, threads=torch.get_num_threads()))
    until = time.monotonic() + 120
    while not list((tmp_path / "run").glob("*0000*")) and time.monotonic() < until:  # the state that a run begins with
        time.sleep(0.1)
    time.sleep(1)
    manager.interrupt_kernel()
    said = client.get_shell_msg(timeout=120)["content"]
    assert said["status"] == "error" and said["ename"] == "KeyboardInterrupt", said
    assert "stopped after step" in said["evalue"] and "has it all" in said["evalue"]
    done = len(read_metrics(tmp_path / "run"))
    assert 0 < done < CONFIG.steps

    client.execute(CELL.format(seed=5, folder=str(tmp_path / "run"), pause=0, threads=torch.get_num_threads()))
    said = client.get_shell_msg(timeout=120)["content"]
    assert said["status"] == "ok", said
    whole = train(tiny_model(seed=0), periodic(400), CONFIG, tmp_path / "whole")
    assert [row["loss"] for row in read_metrics(tmp_path / "run")] == [row["loss"] for row in read_metrics(tmp_path / "whole")]
    found = at_step(tmp_path / "run", CONFIG.steps)["model"]
    assert all(torch.equal(value, found[name]) for name, value in whole.state_dict().items())
