"""A cell: its address is all that decides it, its outcome the same however often it was killed."""

import json
import os
from dataclasses import replace

import pytest
import torch
from ablate.records import drawn
from ablate.tiny import BASE, TRAIN, Before
from ablate.tiny import study as tiny_study
from processes import python

from zamba_lab.ablate import Cell, Quiet, Store, load_trained, report, run, run_cell
from zamba_lab.ablate.cell import hash_of, score
from zamba_lab.ablate.store import COLUMNS
from zamba_lab.model import Zamba

CELL = Cell(BASE, Before(), TRAIN, solved=0.99, sample=16)
KILLED = """
import os, signal, sys
from pathlib import Path
from ablate.test_cell import CELL
from zamba_lab.ablate import run_cell

def stop(row):
    if row["step"] == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

run_cell(CELL, Path(sys.argv[1]), stop)
"""


CHANGES = [
    dict(config=replace(BASE, d_state=8)),
    dict(config=replace(BASE, link_gain=1.0)),
    dict(task=Before(vocab_size=10)),
    dict(solved=0.9),
    dict(sample=17),
    dict(also={"longer": Before(length=9)}),
    dict(train=replace(TRAIN, seed=1)),
    dict(train=replace(TRAIN, lr=2e-2)),
    dict(train=replace(TRAIN, steps=7)),
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_all_that_decides_the_outcome_is_in_the_address(change):
    assert replace(CELL, **change).address != CELL.address


def test_what_decides_nothing_is_not():
    assert replace(CELL, train=replace(TRAIN, checkpoint_every=5, keep=3), weights=True).address == CELL.address


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a process by a signal")
def test_killed_in_the_middle_it_goes_on_to_the_same_bits(tmp_path):
    done = python("-c", KILLED, tmp_path / "parts", 5)
    assert done.returncode == -9, done.stderr[-2000:]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    whole, weights = run_cell(CELL, tmp_path / "whole")
    steps = []
    parts, again = run_cell(CELL, tmp_path / "parts", lambda row: steps.append(row["step"]))
    torch.set_num_threads(threads)
    assert steps == [5, 6], "it went on from the checkpoint of step 4"
    assert parts["outcome_sha256"] == whole["outcome_sha256"] and hash_of(weights) == hash_of(again) == whole["weights_sha256"]


def test_a_record_has_what_the_store_keeps_and_the_curve_what_was_measured(tmp_path):
    record, weights = run_cell(CELL, tmp_path)
    assert record.keys() == COLUMNS.keys()
    assert [point["step"] for point in record["curve"]] == [3, 6]
    assert record["status"] == "unsolved" and record["solved_at"] is None
    assert record["n_params"] == sum(p.numel() for p in Zamba(BASE).parameters())
    assert len(record["link_shares"]) == 1 and record["link_shares"][0] > 0
    model = Zamba(BASE)
    model.load_state_dict(weights)
    again = score(model.eval(), Before().unseen(), CELL, 6)
    assert record["curve"][-1]["accuracy"] == again["accuracy"] and json.loads(record["slices"]).keys() == {"loss.late"}


def test_a_solved_cell_ends_at_the_evaluation_that_saw_it(tmp_path):
    record, _ = run_cell(replace(CELL, solved=0.0001, train=replace(TRAIN, steps=9)), tmp_path)
    assert record["status"] == "solved" and record["solved_at"] == record["steps"] == 3


def test_a_diverged_cell_is_an_outcome(tmp_path):
    record, weights = run_cell(replace(CELL, train=replace(TRAIN, lr=1e30, clip=1e30)), tmp_path)
    assert record["status"] == "diverged" and weights == {} and record["weights_sha256"] == "" and "loss" in record["error"]


def test_other_tasks_are_looked_at_in_the_end(tmp_path):
    record, _ = run_cell(replace(CELL, also={"longer": Before(length=12)}), tmp_path)
    assert json.loads(record["also"]).keys() == {"longer"}


def test_a_trained_model_comes_back_from_the_store(tmp_path):
    study = tiny_study(weights=True, seeds=(0,))
    run(study, tmp_path / "store", 1, Quiet())
    model = load_trained(study, tmp_path / "store", "conv=off", 0)
    record = report(study, tmp_path / "store").cells["conv=off"][0]
    assert hash_of(model.state_dict()) == record["weights_sha256"] and not model.training
    with pytest.raises(ValueError, match="no cell of arm 'conv=off' and seed 7: there are the arms base, conv=off and the seeds"):
        load_trained(study, tmp_path / "store", "conv=off", 7)
    with pytest.raises(ValueError, match="no weights were kept"):
        drawn(few := tiny_study(seeds=(0,)), {"base": [0.5], "conv=off": [0.5]}, store := Store(tmp_path / "other"))
        load_trained(few, store, "base", 0)
