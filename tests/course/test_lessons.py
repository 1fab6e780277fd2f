"""Laws of every lesson: its notebook is what its text says, its exercises are solvable, and each mistake has one name."""

import ast
import json
import re
from pathlib import Path

import nbformat
import pytest

from zamba_lab import course
from zamba_lab.course.checking import judge, same
from zamba_lab.course.running import copied

NOTEBOOKS = Path(__file__).parents[2] / "notebooks" / "course"
LESSONS = course.lessons()
EXERCISES = [exercise for lesson in LESSONS for exercise in lesson.exercises]
MAX_CELL_LINES, MAX_LOOP_LINES = 15, 3


def numbered(exercise) -> str:
    return exercise.number


def named(lesson) -> str:
    return lesson.name


@pytest.mark.parametrize("lesson", LESSONS, ids=named)
def test_the_notebook_of_a_lesson_is_the_one_its_text_gives(lesson):
    """Mend it with course.write("notebooks/course")."""
    stored = (NOTEBOOKS / f"{lesson.name}.ipynb").read_text(encoding="utf-8")
    assert stored == course.notebook(lesson)
    nbformat.validate(json.loads(stored))


def test_there_is_no_notebook_without_a_lesson():
    assert sorted(file.stem for file in NOTEBOOKS.glob("*.ipynb")) == [lesson.name for lesson in LESSONS]


@pytest.mark.parametrize("lesson", LESSONS, ids=named)
def test_a_lesson_has_its_parts(lesson):
    text = lesson.text
    assert (
        re.search(r"\A# Lesson \d+: .+\n\n\*\*Question\.\*\* ", text)
        and "## Recap" in text
        and "**Papers.**" in text
        and "https://" in text
    )
    assert "<details><summary>Answers</summary>" in text and "course.compare(" in text and text.count("**What you see.**") >= 2
    assert re.findall(r"^```exercise\n(.+)\n```$", text, re.MULTILINE) == [exercise.number for exercise in lesson.exercises]
    assert 2 <= len(lesson.exercises) <= 5 and text.count("```") % 2 == 0


@pytest.mark.parametrize("lesson", LESSONS, ids=named)
def test_cells_are_short_and_hold_no_logic(lesson):
    for code in re.findall(r"^```python\n(.*?)^```$", lesson.text, re.DOTALL | re.MULTILINE):
        assert len(code.splitlines()) <= MAX_CELL_LINES, code
        for node in ast.walk(ast.parse(code)):
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef | ast.While), code
            assert not isinstance(node, ast.For) or node.end_lineno - node.lineno < MAX_LOOP_LINES, code


@pytest.mark.parametrize("exercise", EXERCISES, ids=numbered)
def test_the_solution_passes_and_the_stub_is_not_done(exercise):
    assert judge(exercise, exercise.solution).passed
    names = {}
    exec(exercise.stub_code(), names)
    assert judge(exercise, names[exercise.function_name]).status == "not done"


@pytest.mark.parametrize("exercise", EXERCISES, ids=numbered)
def test_a_mistake_is_none_but_itself(exercise):
    """On the cases of an exercise no two mistakes compute the same, and none what the solution does."""
    cases = list(exercise.cases())
    functions = {"": exercise.solution} | {mistake.name: mistake.function for mistake in exercise.mistakes}
    results = {name: [exercise.result(function, copied(case)) for case in cases] for name, function in functions.items()}
    assert len(functions) >= 4
    for name, result in results.items():
        assert [other for other, theirs in results.items() if all(map(same, result, theirs))] == [name]


@pytest.mark.parametrize("lesson", LESSONS, ids=named)
def test_solutions_need_no_more_than_the_lesson_imports(lesson):
    names = {}
    for code in re.findall(r"^```python\n(.*?)^```$", lesson.text, re.DOTALL | re.MULTILINE):
        imports = [node for node in ast.parse(code).body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), lesson.name, "exec"), names)
    exec("\n\n".join(exercise.solution_code() for exercise in lesson.exercises), names)
    assert [judge(exercise, names[exercise.function_name]).sentence for exercise in lesson.exercises] == ["right"] * len(lesson.exercises)


def test_the_readme_lists_every_lesson_with_its_minutes():
    readme = (NOTEBOOKS.parents[1] / "README.md").read_text(encoding="utf-8")
    minutes = {lesson.name: re.search(r"^\*About (\d+) minutes\.", lesson.text, re.MULTILINE)[1] for lesson in LESSONS}
    assert dict(re.findall(r"^\| `course/(\w+)` \| (\d+) \|", readme, re.MULTILINE)) == minutes


def test_functions_have_names_of_their_own():
    names = [exercise.function_name for exercise in EXERCISES]
    assert len(set(names)) == len(names)


def test_the_solved_notebook_has_the_solutions_where_the_starter_has_stubs():
    lesson = LESSONS[0]
    starter, solved = (json.loads(course.notebook(lesson, solved)) for solved in (False, True))
    differing = [
        ("".join(a["source"]), "".join(b["source"]))
        for a, b in zip(starter["cells"], solved["cells"], strict=True)
        if a["source"] != b["source"]
    ]
    assert len(differing) == len(lesson.exercises)
    for (stub, code), exercise in zip(differing, lesson.exercises):
        assert "your code here" in stub and code.startswith(exercise.solution_code()) and f'course.check("{exercise.number}"' in code
