"""The recipe, on a corpus and a model of no size; and the picture."""

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
import torch
from train.tiny import TINY

import zamba_lab as zl
from zamba_lab import corpora
from zamba_lab.config.presets import SHIPPED
from zamba_lab.corpora import Document
from zamba_lab.recipes.picture import _ticks, curve_svg
from zamba_lab.recipes.shipped import make, thin
from zamba_lab.train import Constant, TrainConfig, annealing

FIRST = TrainConfig(steps=4, schedule=Constant(warmup=1), max_epochs=None, batch=2, length=16, evaluate_every=2, checkpoint_every=2)
PHASES = FIRST, annealing(FIRST, steps=3)
MODEL = replace(TINY, vocab_size=280)
SECRET = "a sentence of the corpus that the folder must not hold"


@pytest.fixture
def documents(monkeypatch):
    found = [Document(f"{folder}/{k}", f"{SECRET}\nx = {k}\n") for folder in ("topics", "code") for k in range(60)]
    assert {document.split for document in found} == {"train", "validation", "test"}
    monkeypatch.setattr(corpora, "stdlib_documents", lambda: found)
    return found


def test_the_recipe_makes_a_folder_that_loads(documents, tmp_path):
    metrics = make("zamba2-nano", tmp_path / "out", tmp_path / "run", MODEL, PHASES)
    model = zl.load(tmp_path / "out")
    assert model.tokenizer.decode(model.tokenizer.encode(SECRET)) == SECRET
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == metrics
    assert 0 < metrics["bits_per_byte"]["test"]["model"] < 20 and metrics["training"]["steps"] == 7
    assert corpora.check(documents, tmp_path / "manifest.json") == ""
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "metrics.json", "curve.csv"}
    assert not any(SECRET.encode() in file.read_bytes() for file in (tmp_path / "out").iterdir())
    assert "out" in (tmp_path / "curves.svg").read_text()


def test_the_second_phase_reads_both_domains_at_a_falling_rate(documents, tmp_path):
    metrics = make("zamba2-nano", tmp_path / "out", tmp_path / "run", MODEL, PHASES)
    epochs = metrics["training"]["epochs"]
    assert epochs["pretrain"].keys() == {"python"} and epochs["anneal"].keys() == {"replay", "fresh"}
    rows = (tmp_path / "out" / "curve.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["1", "2", "3", "4", "5", "6", "7"]
    assert float(rows[-1].split(",")[2]) < 0.2 * FIRST.lr


def test_nothing_is_written_before_the_end(documents, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.nn.Module, "train", lambda self, mode=True: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        make("zamba2-nano", tmp_path / "out", tmp_path / "run", MODEL, PHASES)
    assert not (tmp_path / "out").exists()


def test_the_shipped_models_are_of_one_size():
    sizes = {name: zl.ZambaConfig.preset(name).n_params for name in SHIPPED}
    assert len(sizes) == 4 and max(sizes.values()) < 1.02 * min(sizes.values()), sizes


def test_a_thinned_log_keeps_means_and_evaluations():
    log = [
        {
            "step": k + 1,
            "tokens": 10 * (k + 1),
            "lr": 1.0,
            "loss": float(k),
            "gradient_norm": 1.0,
            "python_bits_per_byte": 2.5 if k == 3 else None,
            "seconds": 1.0,
        }
        for k in range(6)
    ]
    curve = thin(log, bytes_per_token=1 / 0.6931471805599453, points=3)
    assert [float(row["train_bits_per_byte"]) for row in curve] == [0.5, 2.5, 4.5]
    assert [row["python_bits_per_byte"] for row in curve] == ["", "2.50000", ""] and curve[-1]["tokens"] == "60"


def test_the_picture_is_svg_with_every_line_named():
    root = ElementTree.fromstring(curve_svg({"train": [(0, 5), (9, 1)], "held out": [(3, 2), (9, 1.1)]}, "title", "tokens", "bits", top=4))
    words = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert {"title", "tokens", "bits", "train 1.00", "held out 1.10"} <= set(words)


@pytest.mark.parametrize("end", [0.7, 1, 4, 9.9, 12.3, 60, 999])
def test_ticks_are_few_and_within(end):
    ticks = _ticks(end)
    assert 3 <= len(ticks) <= 6 and ticks[0] == 0 and ticks[-1] <= end
