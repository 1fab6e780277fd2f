"""What the README shows is there and runs."""

import re
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\]\(([^)#:]+)\)|`((?:zamba_lab|data|benchmarks|tests)/[^` ]*)`",
                                                       README))), ids=lambda pair: "".join(pair))
def test_what_it_points_to_exists(name):
    path = "".join(name)
    assert (ROOT / path).exists(), f"README.md points to {path}"
