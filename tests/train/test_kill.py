"""A run that was killed, over and over and at any moment, ends with the same bits as one that was not."""

import os
from pathlib import Path

import pytest
import torch
from processes import only_long, python

from zamba_lab.train import read_metrics

HERE = Path(__file__).resolve().parent


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")
@pytest.mark.parametrize("run", ["plain", pytest.param("annealing", marks=only_long)])
def test_killed_again_and_again_it_ends_with_the_same_bits(tmp_path, run):
    done = python(HERE / "killed.py", tmp_path, run)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) >= 8, f"{done.stdout} of 13 kills came before the end of the run"
    whole, parts = (torch.load(tmp_path / name / "end.pt") for name in ("whole", "parts"))
    for name, value in whole.items():
        assert torch.equal(value, parts[name]), name
    rows = [
        [{name: value for name, value in row.items() if not name.startswith("seconds")} for row in read_metrics(tmp_path / part)]
        for part in ("whole", "parts")
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 10
    assert not list((tmp_path / "parts").glob("*.part"))
