"""What the README shows is there and runs."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from zamba_lab.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", README, re.DOTALL), ids=["models", "texts"])
def test_the_code_runs(code, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts").mkdir()
    for k, section in enumerate(README.split("\n## ")):
        (tmp_path / "texts" / f"{k}.md").write_text(section, encoding="utf-8")
    exec(compile(code, "README.md", "exec"), {})                       # noqa: S102 - our own README
    assert capsys.readouterr().out.strip()


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
