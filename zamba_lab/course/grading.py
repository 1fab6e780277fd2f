"""A folder of submissions to a table: which exercises each learner has solved, and which mistakes are in the rest.

Of a submitted notebook only imports, functions, classes and assigned literals are run, in a process of their own with a time limit;
then every exercise's function is checked. That is a learner's code on your machine all the same: it is stopped, not locked in.
"""

import ast
import csv
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from zamba_lab.course.catalogue import lessons
from zamba_lab.course.checking import judge

SECONDS = 120.0  # for one file
KEPT = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)


def grade(folder: str | Path, seconds: float = SECONDS) -> Iterator[tuple[str, dict[str, str]]]:
    """Each submission's name and, for each exercise that it has, "passed", "not done" or what is wrong.

    A submission is a folder inside `folder`, with any number of .ipynb and .py files, or one such file in `folder` itself. A file that
    cannot be read, or takes more than so many seconds, has its reason under the key "trouble". Raises ValueError if there is no submission.
    """
    files: dict[str, list[Path]] = {}
    for file in sorted(Path(folder).rglob("*")):
        inside = file.relative_to(folder)
        if file.suffix in (".ipynb", ".py") and file.is_file() and not any(part.startswith(".") for part in inside.parts):
            files.setdefault(inside.parts[0], []).append(file)
    if not files:
        raise ValueError(f"there is no submission in {str(folder)!r}: a folder for each learner, or files .ipynb or .py")
    for name, several in files.items():
        found: dict[str, str] = {}
        for file in several:
            found.update(grade_file(file, seconds))
        yield name, found


def grade_file(file: Path, seconds: float) -> dict[str, str]:
    """The same of one file, in a process of its own."""
    command = [sys.executable, "-m", "zamba_lab.course.grading", str(file)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return {"trouble": f"{file.name} was stopped after {seconds:g} seconds"}
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        last = (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        return {"trouble": f"{file.name}: {last}"}


def definitions(file: Path) -> Iterator[ast.Module]:
    """What is run of a file, statement by statement; cells that are not Python are left out."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".ipynb":
        cells = ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    else:
        cells = [text]
    for cell in cells:
        code = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in cell.splitlines())
        try:
            body = ast.parse(code).body
        except SyntaxError:
            continue
        for node in body:
            if isinstance(node, KEPT) or (isinstance(node, ast.Assign) and is_literal(node.value)):
                yield ast.Module([node], [])


def is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def verdicts(file: Path) -> dict[str, str]:
    """The number of each exercise whose function the file defines -> what its check says."""
    names: dict = {"__name__": "submission"}
    for statement in definitions(file):
        try:
            exec(compile(statement, file.name, "exec"), names)
        except Exception:  # such as an import of what is not installed here; a function that needed it will say so
            continue
    found = {}
    for exercise in (each for lesson in lessons() for each in lesson.exercises):
        if exercise.function_name in names:
            verdict = judge(exercise, names[exercise.function_name])
            found[exercise.number] = verdict.mistake or (verdict.sentence if verdict.status == "wrong" else verdict.status)
    return found


def table(graded: Sequence[tuple[str, dict[str, str]]], out: TextIO) -> None:
    """Write what `grade` gives as CSV: a row for each submission, a column for each exercise."""
    numbers = [each.number for lesson in lessons() for each in lesson.exercises]
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["submission", "passed", "of", *numbers, "trouble"])
    for name, found in graded:
        passed = sum(found.get(number) == "passed" for number in numbers)
        rows.writerow([name, passed, len(numbers), *(found.get(number, "") for number in numbers), found.get("trouble", "")])


if __name__ == "__main__":
    print("\n" + json.dumps(verdicts(Path(sys.argv[1]))))
