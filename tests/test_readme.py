"""What the README shows is there and runs."""

import json
import re
from importlib.util import find_spec
from pathlib import Path
from pydoc_data.topics import topics

import pytest

import zamba_lab as zl
from zamba_lab.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


QUICKER = {"steps=2000, batch=16, length=512": "steps=50, batch=2, length=32", "steps=200": "steps=20"}


def test_the_code_runs_from_top_to_bottom(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder, ending, some in ("texts", "md", slice(None)), ("books", "txt", slice(None, None, 2)):
        (tmp_path / folder).mkdir()
        for name in sorted(topics)[some]:
            (tmp_path / folder / f"topic-{name}.{ending}").write_text(topics[name], encoding="utf-8")
    names, blocks = {}, re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    for code in blocks:
        for long, short in QUICKER.items():
            code = code.replace(long, short)
        exec(compile(code, "README.md", "exec"), names)  # noqa: S102 - our own README
        assert capsys.readouterr().out.strip()
    assert len(blocks) == 3 and all(long in README for long in QUICKER)
    assert zl.load("runs/annealed/model").tokenizer.vocab_size == names["corpus"].vocab_size


@pytest.mark.skipif(find_spec("zamba_lab.tasks") is None, reason="the study's task is one of zamba_lab.tasks")
def test_the_study_can_be_planned(capsys, tmp_path):
    (study,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "study.yaml").write_text(study, encoding="utf-8")
    assert main(["ablate", "plan", str(tmp_path / "study.yaml"), "--store", str(tmp_path / "store")]) == 0
    assert "6 arms, matched by params" in capsys.readouterr().out


# row of the README's table -> (benchmark, work) of each of its numbers
RATIOS = {
    "the Mamba-2 scan; with its gradient": (("ssd_op", "SSD forward B=1 L=2048"), ("ssd_op", "SSD forward+backward")),
    "a training step of a 10 M Zamba2; of an ablation's size": (
        ("train_step", "training step, Zamba2 9.9 M"),
        ("train_step", "training step, Zamba2, ablation size"),
    ),
    "a training step of a Zamba1": (("train_step", "training step, Zamba1"),),
    "reading a prompt of 512 tokens, 2.7B; 1.2B": (
        ("prefill", "prefill 512 tokens, zamba2-2.7b"),
        ("prefill", "prefill 512 tokens, zamba2-1.2b"),
    ),
    "decoding `zamba2-nano`; 2.7B; 1.2B": tuple(
        ("decode", f"decoding after 512, {name}, a token") for name in ("zamba2-nano", "zamba2-2.7b", "zamba2-1.2b")
    ),
    "from a file of 1.2B to its first token, imports aside": (("first_token", "load 2.43 GB and first token, imports excluded"),),
}


def reported(benchmark: str, work: str, peers: tuple[str, ...]) -> float:
    """The ratio of the first row of a work against one of these peers, by the last report."""
    rows = json.loads((ROOT / "benchmarks" / "REPORT.json").read_text())[benchmark]
    return next(float(row["ratio"].removesuffix("x")) for row in rows if row["work"].startswith(work) and row.get("peer") in peers)


@pytest.mark.parametrize("row", RATIOS)
def test_its_ratios_are_those_of_the_report(row):
    (cells,) = re.findall(rf"^\| {re.escape(row)} \| ([^|]*) \| ?([^|]*?) ?\|$", README, re.MULTILINE)
    for cell, peers in zip(cells, (("transformers",), ("transformers, chunk 64", "transformers, mamba.py's pscan"))):
        for said, source in zip(re.findall(r"[\d.]*\d", cell), RATIOS[row]):
            unit = 10 ** -len(said.partition(".")[2])
            assert abs(float(said) - reported(*source, peers)) <= unit / 2 + 1e-9, (said, source, peers)
    assert len(re.findall(r"[\d.]*\d", cells[0])) == len(RATIOS[row])


@pytest.mark.parametrize(
    "benchmark, sentence",
    [("decode", r"Decoding runs at (\d+) and (\d+) % of what"), ("prefill", r"products alone would take (\d+) and (\d+) % of")],
)
def test_its_shares_of_the_floors_are_those_of_the_report(benchmark, sentence):
    rows = json.loads((ROOT / "benchmarks" / "REPORT.json").read_text())[benchmark]
    shares = [row["ratio"] for row in rows for name in ("2.7b", "1.2b") if name in row["work"] and "share of the" in row["work"]]
    (said,) = re.findall(sentence, README)
    assert [f"{share} %" for share in said] == shares


def test_the_model_is_as_small_as_it_says():
    parts = [ROOT / "zamba_lab" / f"{name}.py" for name in ("model", "trace", "cache")]
    parts += [file for name in ("blocks", "ops", "config") for file in (ROOT / "zamba_lab" / name).glob("*.py")]
    lines = sum(len(file.read_text().splitlines()) for file in parts)
    assert "some 2,500 lines" in README and abs(lines - 2500) < 150, lines


@pytest.mark.parametrize(
    "name",
    sorted(set(re.findall(r"\]\(([^)#:]+)\)|`((?:zamba_lab|data|benchmarks|tests)/[^` ]*)`", README))),
    ids=lambda pair: "".join(pair),
)
def test_what_it_points_to_exists(name):
    path = "".join(name)
    assert (ROOT / path).exists(), f"README.md points to {path}"
