"""The comparison with published numbers itself, on a tiny model and numbers made to match it."""

import json
from pathlib import Path

import pytest
import tokenizers
import torch
from variants import BASE, make_model
from weights.golden import NUMBERS, main

import zamba_lab as zl
from zamba_lab.tokenizer import Tokenizer

PROMPTS = ["a b c d", "b e"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with one checkpoint in it, Tiny-1."""
    words = ["<pad>", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
    vocabulary = {word: i for i, word in enumerate(words)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="</s>"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    model = make_model(BASE).float()
    model.tokenizer = Tokenizer(inner)
    folder = tmp_path_factory.mktemp("weights")
    zl.save(model, folder / "Tiny-1")
    return folder


@pytest.fixture(scope="module")
def cases(folder) -> list[dict]:
    """Numbers of each prompt by itself, without padding: once alone, once to be met in a batch."""
    model = zl.load(folder / "Tiny-1")
    rows = []
    for prompt in PROMPTS:
        ids = torch.tensor([model.tokenizer.encode(prompt)])
        with torch.no_grad():
            logits = model(ids)[0, -1]
        new = zl.generate(model, ids, 10)[0].tolist()
        text = " " + " ".join(model.tokenizer.decode([i]) for i in new)
        rows.append({"prompt": prompt, "continuation": text, "logits": {str(i): float(logits[i]) for i in (0, 5, 28)}})
    return [{"checkpoint": "Tiny-1", "dtype": "float32", "atol": 1e-4, "rtol": 0, "rows": few} for few in (rows[:1], rows)]


@pytest.fixture
def compared(tmp_path, capsys):
    """Runs the comparison: the exit status, what was printed, and the report."""

    def run(cases: list[dict], *weights: Path) -> tuple[int, str, str]:
        (tmp_path / "numbers.json").write_text(json.dumps({"cases": cases}))
        path = tmp_path / "reports" / "report.md"
        status = main([*map(str, weights), "--numbers", str(tmp_path / "numbers.json"), "--report", str(path)])
        return status, capsys.readouterr().out, path.read_text()

    return run


def test_equal_numbers_pass_alone_and_in_a_padded_batch(cases, folder, compared):
    for weights in (folder, folder / "Tiny-1"):
        status, printed, report = compared(cases, weights)
        assert status == 0 and "SKIPPED" not in printed
        assert report.count("| ok |") == 2 and "| 2 of 2 |" in report and "| 6 |" in report


def test_a_logit_that_is_off_is_found_and_measured(cases, folder, compared):
    cases = json.loads(json.dumps(cases))
    cases[1]["rows"][1]["logits"]["5"] += 0.25
    status, printed, report = compared(cases, folder)
    assert status == 1 and "DIFFERS  Tiny-1" in printed
    assert "| 2.50e-01 | 5 |" in report and report.count("| DIFFERS |") == report.count("| ok |") == 1


def test_a_continuation_that_differs_is_shown(cases, folder, compared):
    cases = json.loads(json.dumps(cases))
    cases[0]["rows"][0]["continuation"] += " z"
    status, _, report = compared(cases, folder)
    assert status == 1 and "| 0 of 1 | DIFFERS |" in report
    assert f"expected {cases[0]['rows'][0]['continuation']!r}" in report


def test_without_weights_or_tokenizer_it_says_so_loudly(cases, folder, compared, tmp_path):
    bare = zl.load(folder / "Tiny-1")
    bare.tokenizer = None
    zl.save(bare, tmp_path / "bare" / "Tiny-1")
    for weights, reason in (
        ((), "no folder named Tiny-1 given"),
        ((tmp_path / "nothing",), "no folder named Tiny-1 in"),
        ((tmp_path / "bare",), "no tokenizer beside the weights"),
    ):
        status, printed, report = compared(cases, *weights)
        assert status == 0 and "SKIPPED 2 OF 2 CASES" in printed and "Tiny-1" in printed
        assert reason in printed and reason in report and report.count("| SKIPPED |") == 2


def test_the_published_numbers_are_of_published_shapes():
    cases = json.loads(NUMBERS.read_text())["cases"]
    assert {case["checkpoint"].lower() for case in cases} <= set(zl.ZambaConfig.presets())
    for case in cases:
        assert case["dtype"] in ("float32", "bfloat16") and case["atol"] > 0 <= case["rtol"]
        assert all(set(row) == {"prompt", "continuation", "logits"} for row in case["rows"])
        assert any(row["logits"] for row in case["rows"])
