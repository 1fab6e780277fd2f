"""What the README shows is there and runs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_code_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(code, "README.md", "exec"), {})                       # noqa: S102 - our own README
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"\]\(([^)#:]+)\)|`((?:zamba_lab|data|benchmarks|tests)/[^` ]*)`",
                                                       README))), ids=lambda pair: "".join(pair))
def test_what_it_points_to_exists(name):
    path = "".join(name)
    assert (ROOT / path).exists(), f"README.md points to {path}"
