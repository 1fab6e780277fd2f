"""From the text of a lesson to a notebook: a starter with stubs, or one with the solutions in their places.

A text is Markdown. Of its fenced blocks, those marked `python` are code cells; one marked `exercise` holds an exercise's number and becomes
three cells: what to do, the function to write with its check, and the hints.
"""

import json
import re
from pathlib import Path

from zamba_lab.course.catalogue import Lesson, lessons
from zamba_lab.course.exercises import Exercise

FENCE = re.compile(r"^```(python|exercise)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def notebook(lesson: Lesson, solved: bool = False) -> str:
    """The file of a lesson's notebook, without outputs. solved: with the solutions."""
    cells: list[dict] = []
    for kind, source in pieces(lesson.text):
        if kind == "exercise":
            (found,) = (each for each in lesson.exercises if each.number == source)
            cells += exercise_cells(found, solved)
        else:
            cells.append(cell(kind, source))
    for i, each in enumerate(cells):
        each["id"] = f"l{lesson.number:02d}-{i:02d}"
    return json.dumps({"cells": cells, "metadata": METADATA, "nbformat": 4, "nbformat_minor": 5}, indent=1, ensure_ascii=False) + "\n"


def pieces(text: str) -> list[tuple[str, str]]:
    """The text cut into ("markdown" | "python" | "exercise", what is inside)."""
    found, at = [], 0
    for fence in FENCE.finditer(text):
        found += [("markdown", text[at : fence.start()].strip()), (fence[1], fence[2].strip())]
        at = fence.end()
    return [(kind, source) for kind, source in [*found, ("markdown", text[at:].strip())] if source]


def exercise_cells(exercise: Exercise, solved: bool) -> list[dict]:
    code = exercise.solution_code() if solved else exercise.stub_code()
    check = f'\n\n\ncourse.check("{exercise.number}", {exercise.function_name})'
    effort = f"*{exercise.level}, {exercise.minutes} minutes.* Write the function and run the cell."
    heading = f"### Exercise {exercise.number}: {exercise.title}\n\n{effort}"
    hints = [f"<details><summary>Hint {i}</summary>\n\n{hint}\n\n</details>" for i, hint in enumerate(exercise.hints, 1)]
    solution = f'After that, `course.solution("{exercise.number}")` prints a solution.'
    return [cell("markdown", heading), cell("python", code + check), cell("markdown", "\n\n".join([*hints, solution]))]


def cell(kind: str, source: str) -> dict:
    common = {"metadata": {}, "source": source.splitlines(keepends=True)}
    if kind == "markdown":
        return {"cell_type": "markdown", **common}
    return {"cell_type": "code", "execution_count": None, "outputs": [], **common}


def write(folder: str | Path, solved: bool = False) -> list[Path]:
    """Write the notebooks of all lessons into a folder, which is made if it is not there. A file that differs is replaced.

    Returns: the files. Raises OSError if the folder cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for lesson in lessons():
        files.append(folder / f"{lesson.name}{'.solved' if solved else ''}.ipynb")
        files[-1].write_text(notebook(lesson, solved), encoding="utf-8")
    return files
