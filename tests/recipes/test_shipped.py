"""The models in data/: small, each its preset, read the same text, have learnt what their papers say, and the papers agree."""

import csv
import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from shipped import nano

import zamba_lab as zl
from zamba_lab import lens
from zamba_lab.config.presets import SHIPPED
from zamba_lab.evaluate import document_bits
from zamba_lab.recipes import annealing_study
from zamba_lab.recipes.shipped import MANIFEST, PHASE_1, PHASE_2, SUMS, learning_curves, sums

DATA = Path(__file__).parents[2] / "data"
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
XZ = "xz_one_file", "xz_file_by_file", "xz_after_training_text"


def metrics_of(name: str) -> dict:
    return json.loads((SHIPPED[name] / "metrics.json").read_text())


def readme() -> str:
    return re.sub(r"\s+", " ", (DATA / "README.md").read_text())


def test_all_of_it_is_at_most_thirty_megabytes():
    n_bytes = sum(file.stat().st_size for file in DATA.rglob("*") if file.is_file() and "cache" not in file.parts)
    assert n_bytes <= 30_000_000, n_bytes


@pytest.mark.parametrize("name", SHIPPED)
def test_each_is_its_preset_with_its_tokenizer(name):
    model = zl.load(name)
    assert model.config == zl.ZambaConfig.preset(name)
    assert model.tokenizer.vocab_size == model.config.vocab_size
    assert (model.tokenizer.pad_id, model.tokenizer.bos_id, model.tokenizer.eos_id) == (
        model.config.pad_token_id,
        model.config.bos_token_id,
        model.config.eos_token_id,
    )


@pytest.mark.parametrize("name", SHIPPED)
def test_each_has_learnt_python(name):
    """Text that is in no corpus: a model that knew only how often each byte occurs would need over four bits for each."""
    model = zl.load(name)
    found = document_bits(model, [TEXT], model.tokenizer)[0] / len(TEXT.encode())
    assert found < 2.0, found


def test_they_have_one_vocabulary_and_read_the_same_tokens():
    files = {hashlib.sha256((folder / "tokenizer.json").read_bytes()).hexdigest() for folder in SHIPPED.values()}
    runs = {name: metrics_of(name)["training"] for name in SHIPPED}
    assert len(files) == len({run["tokens"] for run in runs.values()}) == 1
    for name, run in runs.items():  # where nothing is shared, its share of the decay says nothing
        silent = set() if zl.ZambaConfig.preset(name).n_invocations else {"shared_decay"}
        for found, phase in zip(run["phases"], (PHASE_1, PHASE_2), strict=True):
            assert all(found.get(argument) == value for argument, value in phase.facts().items() if argument not in silent), name


def test_zamba2_nano_hears_its_shared_blocks():
    """As data/README.md says; a run that went wrong had less than 0.001 nats."""
    model = nano(torch.float32)
    found = lens.effect(model, torch.tensor([model.tokenizer.encode(TEXT)]), lens.zero("invocation"), controls=0)
    assert found.change.mean() > 0.1, found.change.mean()


def test_zamba2_nano_reads_evenly_and_zamba1_nano_less_so():
    """As data/README.md and notebooks 00 and 03 say: how many tokens a head spreads over, as a share of what an even one would."""
    shares = {}
    for name in ("zamba2-nano", "zamba1-nano"):
        model = zl.load(name)
        ids = torch.tensor([model.tokenizer.encode(TEXT)])
        even = torch.arange(1, ids.shape[1] + 1).log().mean()
        shares[name] = (lens.attention_habits(model, ids).entropy.mean((1, 3)) - even).exp()
    assert shares["zamba2-nano"].min() > 0.85 and shares["zamba2-nano"].median() > 0.97
    assert shares["zamba1-nano"].max() < 0.85 and shares["zamba1-nano"].min() < 0.6


def test_the_page_on_training_states_how_good_the_model_is():
    text = (DATA.parent / "docs" / "training.md").read_text(encoding="utf-8")
    found = metrics_of("zamba2-nano")["bits_per_byte"]["test"]
    below = 100 * (1 - found["model"] / found["xz_one_file"])
    assert f"{found['model']:.2f} bits a byte of text it has not seen, {below:.0f} % below" in text


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("how", ["xz_one_file", "xz_file_by_file"])
def test_the_best_is_a_quarter_below_xz(how, split):
    """Also where xz reads all the text as one file and the model each document alone, from its start."""
    found = [metrics_of(name)["bits_per_byte"][split] for name in SHIPPED]
    assert min(one["model"] for one in found) <= 0.75 * found[0][how]


@pytest.mark.parametrize("name", SHIPPED)
def test_the_readme_states_what_was_measured(name):
    text, metrics = readme(), metrics_of(name)
    tables = dict(zip(("validation", "test"), re.findall(r"of them prose:.*?after the training text \| [\d.]+ \|", text)))
    for split, found in metrics["bits_per_byte"].items():
        row = " | ".join(f"{found[part]:.3f}" for part in ("model", "model_python", "model_prose"))
        assert f"| {name} | {row} |" in tables[split], (split, row)
        assert all(f"| {found[how]:.3f} |" in tables[split] for how in XZ)
    training = metrics["training"]
    for said in (
        f"{training['steps']:,} steps",
        f"{training['tokens']:,} tokens",
        f"{training['parameters']:,}",
        f"weight decay {training['phases'][0]['weight_decay']:g},",
    ):
        assert said in text, said


def test_every_curve_ends_near_what_was_measured():
    """In the course of training windows are read from an empty memory, so a little above."""
    for name, (tokens, bits) in learning_curves().items():
        end = metrics_of(name)["bits_per_byte"]["validation"]["model_python"]
        assert 0.95 * end < bits[-1] < 1.15 * end and tokens == sorted(tokens)
    assert learning_curves().keys() == SHIPPED.keys()


def test_the_sums_are_those_of_the_files():
    """As `sha256sum --check` in data/ says."""
    known = dict(line.split("  ")[::-1] for line in (DATA / SUMS).read_text().splitlines())
    kinds = (".safetensors", ".json", ".csv", ".parquet")
    assert known.keys() == {str(file.relative_to(DATA)) for file in DATA.rglob("*") if file.suffix in kinds}
    for name, found in known.items():
        assert hashlib.sha256((DATA / name).read_bytes()).hexdigest() == found, name
    assert (DATA / SUMS).read_text() == sums(DATA), "as the recipe writes them"


def test_the_manifest_adds_up():
    manifest, measured = json.loads((DATA / MANIFEST).read_text()), metrics_of("zamba2-nano")["bits_per_byte"]
    for split, total in manifest["splits"].items():
        rows = [row for row in manifest["documents"] if row[1] == split]
        assert total == {"documents": len(rows), "bytes": sum(row[2] for row in rows)}
    assert {split: measured[split]["bytes"] for split in measured} == {split: manifest["splits"][split]["bytes"] for split in measured}


def test_the_readme_states_what_the_study_found():
    rows = {row.strip(" |") for row in (DATA / "README.md").read_text().splitlines()}
    missing = [row for row in annealing_study.table(annealing_study.read()).splitlines() if row.strip(" |") not in rows]
    assert not missing, missing


def test_the_stored_study_adds_up_from_its_rows():
    with open(annealing_study.STORED / annealing_study.RESULTS, newline="") as file:
        assert annealing_study.differences(list(csv.DictReader(file))) == annealing_study.read()
