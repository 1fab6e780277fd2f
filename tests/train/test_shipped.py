"""The model in data/: it is small, it is the preset, its papers are in order, and it has learnt what it says."""
import hashlib
import json
import re
from pathlib import Path

import pytest
import torch

import zamba_lab as zl
from zamba_lab import lens
from zamba_lab.train import document_bits

DATA = Path(__file__).parents[2] / "data"
NANO = DATA / "zamba2-nano"
TEXT = '''class Counter:
    """Count things."""

    def __init__(self, name):
        self.name = name
        self.value = 0

    def add(self, value):
        if not isinstance(value, int):
            raise TypeError("value must be an integer")
        self.value = self.value + value
        return self.value
'''


@pytest.fixture(scope="module")
def model():
    return zl.load("zamba2-nano")


@pytest.fixture(scope="module")
def metrics():
    return json.loads((NANO / "metrics.json").read_text())


def test_it_is_at_most_ten_megabytes():
    n_bytes = sum(file.stat().st_size for file in NANO.iterdir())
    assert n_bytes <= 10_000_000, n_bytes


def test_it_is_the_preset_with_its_tokenizer(model):
    assert model.config == zl.ZambaConfig.preset("zamba2-nano")
    assert model.tokenizer.vocab_size == model.config.vocab_size
    assert (model.tokenizer.pad_id, model.tokenizer.bos_id, model.tokenizer.eos_id) == (
        model.config.pad_token_id, model.config.bos_token_id, model.config.eos_token_id)


def test_it_has_learnt_python(model):
    """Text that is in no corpus: a model that knew only how often each byte occurs would need over four bits for each."""
    found = document_bits(model, [TEXT], model.tokenizer)[0] / len(TEXT.encode())
    assert found < 2.0, found


@pytest.mark.parametrize("part", ["invocation", "concat"])
def test_it_hears_its_shared_blocks_and_they_hear_the_embeddings(model, part):
    """Little on one short text, as data/README.md says; a run that went wrong had less than 0.001 nats."""
    ids = torch.tensor([model.tokenizer.encode(TEXT)])
    found = lens.effect(model, ids, lens.zero(part), controls=0)
    assert found.change.mean() > 0.01, found.change.mean()


def test_the_readme_states_what_was_measured(metrics):
    text = re.sub(r"\s+", " ", (DATA / "README.md").read_text())
    for split, found in metrics["bits_per_byte"].items():
        for name in ("model", "xz_one_file", "xz_file_by_file", "xz_after_training_text"):
            assert f"{found[name]:.3f}" in text, (split, name, found[name])
    training = metrics["training"]
    for said in (f"{training['steps']:,} steps", f"{training['tokens']:,} tokens", f"seed {training['seed']}",
                 f"{training['parameters']:,} parameters"):
        assert said in text, said


def test_the_readme_states_the_hashes():
    text = (DATA / "README.md").read_text()
    for name in ("model.safetensors", "tokenizer.json", "manifest.json"):
        assert hashlib.sha256((NANO / name).read_bytes()).hexdigest() in text, name


def test_the_manifest_adds_up(metrics):
    manifest = json.loads((NANO / "manifest.json").read_text())
    for split, total in manifest["splits"].items():
        rows = [row for row in manifest["documents"] if row[1] == split]
        assert total == {"documents": len(rows), "bytes": sum(row[2] for row in rows)}
    assert {split: metrics["bits_per_byte"][split]["bytes"] for split in ("validation", "test")} == {
        split: manifest["splits"][split]["bytes"] for split in ("validation", "test")}
