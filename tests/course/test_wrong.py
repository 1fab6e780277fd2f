"""Wrong solutions, written as students write them, are told apart by their checks."""

import importlib.util
from pathlib import Path

import pytest

from zamba_lab import course
from zamba_lab.course.checking import judge

SPEC = importlib.util.spec_from_file_location("wrong", Path(__file__).with_name("wrong.py"))
wrong = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(wrong)


def test_every_exercise_has_at_least_three():
    assert {number: len(functions) >= 3 for number, functions in wrong.WRONG.items()} == {
        exercise.number: True for lesson in course.lessons() for exercise in lesson.exercises
    }


@pytest.mark.parametrize("number", wrong.WRONG)
def test_each_is_named_by_its_own_mistake(number):
    exercise = course.exercise(number)
    found = [(judge(exercise, function).mistake, name) for function, name in wrong.WRONG[number]]
    assert len(set(found)) == len(found)
    for mistake, name in found:
        assert mistake.startswith(name), found
