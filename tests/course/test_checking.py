"""Whatever a function does, its check says so in a sentence and goes on; what is passed is remembered."""

import contextlib
import json
import time

import numpy as np
import pytest
import torch

from zamba_lab import course
from zamba_lab.course.checking import judge
from zamba_lab.course.records import FILE, progress, record

EXERCISE = course.exercise("2.1")
RIGHT = EXERCISE.solution


def endless(*arguments):
    while True:
        with contextlib.suppress(Exception):
            str(arguments)


def raising(*arguments):
    return arguments[0] @ arguments[1]


def leaving(*arguments):
    raise SystemExit


def spoiling(x, decay, B, C):
    result = RIGHT(x, decay, B, C)
    x.mul_(2)
    return result


def nearly(x, decay, B, C):
    y, states = RIGHT(x, decay, B, C)
    y[5] += 1e-3
    return y, states


@pytest.mark.parametrize(
    ("function", "status", "sentence"),
    [
        (lambda *_: None, "not done", "the stub is as it was"),
        (lambda *_: ..., "not done", "the stub is as it was"),
        ([1.0], "wrong", "this is a list: pass the function itself, `recurrence`, without calling it"),
        (raising, "wrong", "with x (11,), decay (3,), B (3,), C (3,) it raised RuntimeError"),
        (leaving, "wrong", "it raised SystemExit"),
        (lambda x: x, "wrong", "it raised TypeError"),
        (lambda *a: RIGHT(*a)[0], "wrong", "should be 2 things, as in `return a, b`: got a tensor of shape (11,)"),
        (lambda *a: (list(RIGHT(*a)[0]), RIGHT(*a)[1]), "wrong", "value 1 of 2 should be a tensor: got a list: torch.stack"),
        (lambda *a: (RIGHT(*a)[0].numpy(), RIGHT(*a)[1]), "wrong", "value 1 of 2 should be a tensor: got a ndarray"),
        (lambda *a: (RIGHT(*a)[0], RIGHT(*a)[1].T), "wrong", "value 2 of 2 should have shape (11, 3): got (3, 11)"),
        (lambda *a: (RIGHT(*a)[0].float(), RIGHT(*a)[1]), "wrong", "should be float64, as its input: got float32"),
        (lambda *a: (RIGHT(*a)[0] / 0, RIGHT(*a)[1]), "wrong", "NaN or infinity in value 1 of 2, first at [0]"),
        (spoiling, "wrong", "it changes its argument x in place"),
        (nearly, "wrong", "1 of 11 numbers are wrong in value 1 of 2; the first, at [5], is"),
        (lambda *a: tuple(part + 1e-12 for part in RIGHT(*a)), "passed", "right"),
    ],
)
def test_bad_input_is_a_sentence(function, status, sentence):
    verdict = judge(EXERCISE, function)
    assert verdict.status == status and sentence in verdict.sentence and verdict.mistake == ""
    assert verdict.exercise.number in repr(verdict) and "\n" not in verdict._repr_markdown_()


def test_an_endless_loop_is_stopped():
    started = time.monotonic()
    verdict = judge(EXERCISE, endless, seconds=0.2)
    assert "stopped after 0.2 seconds. Does a loop never end?" in verdict.sentence and time.monotonic() - started < 3
    assert judge(EXERCISE, RIGHT).passed


def test_a_number_may_be_python_s_or_torch_s():
    exercise = course.exercise("2.2")
    assert judge(exercise, lambda A, dt: torch.tensor(exercise.solution(A, dt))).passed
    assert judge(exercise, lambda A, dt: np.float64(exercise.solution(A, dt))).passed
    assert "should be one number: got a str" in judge(exercise, lambda A, dt: "long").sentence
    assert "and 6.931 is right" in judge(exercise, lambda A, dt: 3.0).sentence


def test_an_unknown_number_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match=r"no exercise '2\.99': there are .*2\.1"):
        course.check("2.99", RIGHT)
    with pytest.raises(ValueError, match="no lesson 99: there are"):
        course.lesson(99)


def test_progress_survives_a_restart_and_holds_what_was_passed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    course.check("2.1", lambda *_: None)
    assert not (tmp_path / FILE).exists()
    course.check("2.1", RIGHT)
    assert list(json.loads((tmp_path / FILE).read_text())) == ["2.1"]
    (row,) = [row for row in progress().rows() if row[0].startswith("2 ")]
    assert row[1:3] == (1, 4) and row[3].startswith("2.2")
    assert "■□□□" in repr(progress()) and "1 of 4" in progress()._repr_markdown_()


def test_a_damaged_or_unwritable_progress_file_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / FILE).write_text("[1")
    with pytest.raises(ValueError, match="is damaged: delete it"):
        progress(tmp_path)
    assert "could not be saved" in record("2.1", tmp_path) and "could not be saved" in record("2.1", tmp_path / "absent")
    monkeypatch.chdir(tmp_path)
    assert course.check("2.1", RIGHT).passed


@pytest.mark.parametrize(
    ("prediction", "measured", "sentence"),
    [
        (..., 7, "measured: 7 steps. You made no prediction"),
        (7, 7.2, "You said 7 steps; it is 7.2 steps: within a tenth."),
        (3, 12.0, "it is 12 steps: 4 times more."),
        (12, 3, "it is 3 steps: 4 times less."),
        (-1.0, 2.0, "You said -1 steps; it is 2 steps."),
        ("yes", "yes", "as you said"),
        (float("nan"), 2, "You said nan steps; it is 2 steps."),
    ],
)
def test_a_prediction_is_put_beside_what_was_measured(prediction, measured, sentence, capsys):
    course.compare(prediction, measured, "steps")
    assert sentence in capsys.readouterr().out


def test_a_learner_s_function_is_put_beside_the_library_s(capsys):
    x = torch.arange(3.0)
    for function, sentence in (
        (lambda x: None, "is not done yet"),
        (lambda x: x @ x[:2], "raised RuntimeError"),
        (lambda x: x[:2], "shapes differ: [(2,)] and [(3,)]"),
        (lambda x: 2 * x, "largest difference 2.0e+00, in numbers of up to 2"),
    ):
        course.beside(function, lambda x: x, x)
        assert sentence in capsys.readouterr().out
