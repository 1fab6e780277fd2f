"""What the README shows is there and runs."""

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
        exec(compile(code, "README.md", "exec"), names)                # noqa: S102 - our own README
        assert capsys.readouterr().out.strip()
    assert len(blocks) == 3 and all(long in README for long in QUICKER)
    assert zl.load("runs/annealed/model").tokenizer.vocab_size == names["corpus"].vocab_size


@pytest.mark.skipif(find_spec("zamba_lab.tasks") is None, reason="the study's task is one of zamba_lab.tasks")
def test_the_study_can_be_planned(capsys, tmp_path):
    (study,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "study.yaml").write_text(study, encoding="utf-8")
    assert main(["ablate", "plan", str(tmp_path / "study.yaml"), "--store", str(tmp_path / "store")]) == 0
    assert "6 arms, matched by params" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\]\(([^)#:]+)\)|`((?:zamba_lab|data|benchmarks|tests)/[^` ]*)`",
                                                       README))), ids=lambda pair: "".join(pair))
def test_what_it_points_to_exists(name):
    path = "".join(name)
    assert (ROOT / path).exists(), f"README.md points to {path}"
