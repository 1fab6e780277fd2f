"""A folder of submissions becomes a table, whatever is in them."""

import csv
import json

import pytest

from zamba_lab import cli, course
from zamba_lab.course import grading

PERFECT, LAZY = "perfect", "lazy"


@pytest.fixture
def submissions(tmp_path):
    """A solved notebook, a starter, a script with a mistake, an import that fails and a line that must not run, and a broken file."""
    for name, solved in ((PERFECT, True), (LAZY, False)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "lesson.ipynb").write_text(course.notebook(course.lesson(2), solved), encoding="utf-8")
    (tmp_path / "script.py").write_text(
        "import math\nimport a_module_that_is_nowhere\nFACTOR = 1\nopen('ran', 'w')\n"
        "def half_life(A, dt):\n    return -FACTOR / (dt * A)\n"
        "def discretise(A, dt):\n    return (dt * A).exp(), ((dt * A).exp() - 1) / A\n",
        encoding="utf-8",
    )
    (tmp_path / "broken.ipynb").write_text("{", encoding="utf-8")
    return tmp_path


def test_submissions_become_a_table(submissions, monkeypatch, capsys):
    monkeypatch.chdir(submissions.parent)
    monkeypatch.setattr(grading, "grade_file", in_this_process)
    out = submissions.parent / "grades.csv"
    assert cli.main(["course", "grade", str(submissions), "--table", str(out)]) == 0
    assert "4 submissions" in capsys.readouterr().out
    rows = {row["submission"]: row for row in csv.DictReader(out.read_text(encoding="utf-8").splitlines())}
    assert [rows[PERFECT][f"2.{i}"] for i in (1, 2, 3, 4)] == ["passed"] * 4 and rows[PERFECT]["passed"] == "4"
    assert [rows[LAZY][f"2.{i}"] for i in (1, 2, 3, 4)] == ["not done"] * 4 and rows[LAZY]["3.1"] == ""
    assert rows["script.py"]["2.2"].startswith("This is the time to 1/e") and rows["script.py"]["2.3"] == "passed"
    assert rows["broken.ipynb"]["trouble"].startswith("broken.ipynb") and rows["broken.ipynb"]["passed"] == "0"
    assert not (submissions.parent / "ran").exists() and not (submissions / "ran").exists()


def in_this_process(file, seconds):
    try:
        return grading.verdicts(file)
    except json.JSONDecodeError as error:
        return {"trouble": f"{file.name}: {error}"}


def test_a_file_is_graded_in_a_process_of_its_own(submissions):
    assert grading.grade_file(submissions / "script.py", 300)["2.3"] == "passed"
    assert grading.grade_file(submissions / "script.py", 0.01) == {"trouble": "script.py was stopped after 0.01 seconds"}


def test_a_folder_without_submissions_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="there is no submission in"):
        list(grading.grade(tmp_path))


def test_the_command_writes_starters_and_solutions(tmp_path, capsys):
    assert cli.main(["course", "write", str(tmp_path)]) == 0 and cli.main(["course", "write", str(tmp_path), "--solved"]) == 0
    names = {file.name for file in tmp_path.iterdir()}
    assert {"02_a_linear_recurrence.ipynb", "02_a_linear_recurrence.solved.ipynb"} <= names and "notebooks in" in capsys.readouterr().out
