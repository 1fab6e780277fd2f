"""One of two processes fails: neither waits for ever, and what they leave goes on to the bits of a run without trouble."""

import os
from pathlib import Path

import pytest
import torch
from processes import left_by

from zamba_lab.train import read_metrics
from zamba_lab.train.files import at_step

HERE = Path(__file__).resolve().parent
pytestmark = pytest.mark.skipif(not hasattr(os, "fork") or not torch.distributed.is_available(), reason="forks gloo processes")


@pytest.fixture(scope="module")
def left(tmp_path_factory):
    return left_by(HERE / "failing.py", tmp_path_factory.mktemp("failing"))


def said(left, kind: str, case: str | None, when: str = "first") -> list[str | None]:
    files = [left / f"{kind}, {case}, {when}-{rank}.txt" for rank in range(2)]
    return [file.read_text() if file.exists() else None for file in files]


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_loss_that_is_no_number_in_one_stops_both_and_each_names_its_windows(left, kind):
    first, second = said(left, kind, "no number")
    assert first != second
    for one in (first, second):
        assert one.startswith("FloatingPointError: ") and "step 4 has loss nan" in one and "'data' tokens" in one


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_an_interrupt_of_one_stops_both_after_the_same_step(left, kind):
    first, second = said(left, kind, "stopped")
    assert first == second and first.startswith("KeyboardInterrupt: stopped after step 4 of 6")


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_where_one_is_killed_the_other_ends_with_an_error(left, kind):
    first, second = said(left, kind, "killed")
    assert second is None and first != "done" and "Error" in first


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize("case", ["no number", "stopped", "killed"])
def test_what_is_left_goes_on_to_the_same_bits(left, kind, case):
    whole, found = (left / f"{kind}, {one}" for one in (None, case))
    assert said(left, kind, None) == said(left, kind, case, "again") == ["done", "done"]
    for name, value in at_step(whole, 6)["model"].items():
        assert torch.equal(at_step(found, 6)["model"][name], value), name
    losses = [[row["loss"] for row in read_metrics(folder)] for folder in (whole, found)]
    assert losses[0] == losses[1] and len(losses[0]) == 6
