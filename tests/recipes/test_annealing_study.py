"""The annealing study: arms are paired by their trunk, what is reported is what the rows say, and a stopped study goes on."""

import csv
import json
from dataclasses import replace

import pytest
from train.tiny import TINY

from zamba_lab import corpora
from zamba_lab.corpora import Document
from zamba_lab.recipes.annealing_study import ARMS, CONTRASTS, differences, study, table
from zamba_lab.train import Constant, TrainConfig, read_metrics

MODEL = replace(TINY, vocab_size=280)
TRUNK = TrainConfig(steps=3, schedule=Constant(warmup=1), max_epochs=None, batch=2, length=16, checkpoint_every=3)


def test_every_arm_branches_from_its_trunk_and_is_paired_by_it(tmp_path, monkeypatch):
    found = [Document(f"{folder}/{k}", f"some words of the corpus\nx = {k}\n") for folder in ("topics", "code") for k in range(80)]
    monkeypatch.setattr(corpora, "stdlib_documents", lambda: found)
    said = study(tmp_path / "out", tmp_path / "runs", seeds=(0, 1), model=MODEL, trunk=TRUNK, branch=8, jobs=1)
    with open(tmp_path / "out" / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["arm"]) for row in rows] == [(seed, arm) for seed in "01" for arm in ("trunk", *ARMS)]
    assert len({row["python"] for row in rows}) == len(rows)
    runs = tmp_path / "runs" / "seed-1"
    assert {folder.name for folder in runs.iterdir()} == {"trunk", *(arm.replace("/", "-") for arm in ARMS)}
    last = {name: read_metrics(runs / name)[-1]["lr"] for name in ("constant-mix", "decay-mix")}
    assert last["constant-mix"] == TRUNK.lr and last["decay-mix"] < 0.6 * TRUNK.lr
    again = study(tmp_path / "out", tmp_path / "runs", seeds=(0, 1), model=MODEL, trunk=TRUNK, branch=8, jobs=1)
    assert again == said and json.loads((tmp_path / "out" / "summary.json").read_text())["seeds"] == [0, 1]


def rows_with(effects):
    """Rows of five trunks, each with its own level, whose arms differ from it by these much."""
    return [
        {"seed": seed, "arm": arm, "python": 2 + 0.3 * seed + effect + 0.001 * (seed % 2), "prose": 3 + 0.2 * seed}
        for seed in range(5)
        for arm, effect in effects.items()
    ]


def test_differences_are_those_of_the_arms_whatever_the_trunks_are():
    effects = dict.fromkeys(ARMS, 0.0) | {"decay/python": -0.1, "decay/mix": -0.2}
    found = {(one["what"], one["domain"]): one for one in differences(rows_with(effects))}
    assert len(found) == 2 * len(CONTRASTS)
    one = found["the falling rate, on phase 1's text", "python"]
    assert one["mean"] == pytest.approx(-0.1) and one["low"] <= one["mean"] <= one["high"] < 0 and one["n"] == 5
    assert one["p"] == 2 / 2**5  # the least there can be with five: nobody may call it significant
    none = found["the mixture, at a constant rate", "prose"]
    assert none["mean"] == 0 and none["p"] == 1
    assert table(list(found.values())).count("\n") == 1 + len(found)
