"""Laws of the schedules: pure functions of the step, with the ends that they say."""

import math
from dataclasses import replace

import pytest

from zamba_lab.train.schedules import SCHEDULES, WSD, Constant, Cosine, Exponential, Linear, Schedule, read_schedule

STEPS = 200
ALL = [Constant(20), Linear(20, final=0.1), Cosine(20, final=0.1), WSD(20, decay=0.25, final=0.1), Exponential(20, factor=0.1)]


def shares(schedule: Schedule, steps: int = STEPS) -> list[float]:
    return [schedule.share(step, steps) for step in range(steps)]


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_the_share_rises_in_a_line_to_one_and_never_rises_again(schedule):
    found = shares(schedule)
    assert found[:20] == [(k + 1) / 20 for k in range(20)] and max(found) == 1
    assert found[19:] == sorted(found[19:], reverse=True)


@pytest.mark.parametrize("schedule", ALL[1:], ids=str)
def test_what_falls_ends_at_its_floor(schedule):
    """The step after the last would be at the floor itself."""
    assert schedule.share(STEPS, STEPS) == pytest.approx(0.1) and 0.1 < shares(schedule)[-1] < 0.13


def test_the_halves_are_where_the_formulas_put_them():
    assert Linear(final=0.5).share(50, 100) == pytest.approx(0.75)
    assert Cosine(final=0.5).share(50, 100) == pytest.approx(0.75)
    assert Exponential().share(50, 100) == pytest.approx(0.1)
    assert Exponential().share(25, 100) == pytest.approx(math.exp(-0.25 * math.log(100)))
    assert WSD(decay=0.4).share(80, 100) == pytest.approx(0.5)


def test_wsd_is_one_until_the_decay_whatever_the_end():
    assert set(shares(WSD(20, decay=0.25))[19:151]) == {1.0}
    assert shares(WSD(20, decay=0.25))[:100] == shares(WSD(20, decay=0.25), 400)[:100]


@pytest.mark.parametrize("kind", SCHEDULES.values())
def test_without_warm_up_the_first_step_has_the_peak(kind):
    assert kind().share(0, 7) == 1


@pytest.mark.parametrize("schedule", ALL, ids=str)
def test_written_and_read_it_is_the_same(schedule):
    assert read_schedule(str(schedule)) == schedule
    assert read_schedule(f" {str(schedule).split('(')[0]} ") == replace(type(schedule)(), warmup=0)


@pytest.mark.parametrize(
    "text, rule",
    [
        ("square", "one of constant, linear, cosine, wsd, exponential: got 'square'"),
        ("wsd(3)", "wsd takes decay=, final=, warmup= and"),
        ("cosine(decay=0.3)", "cosine takes final=, warmup= and nothing else"),
        ("cosine(", "written like"),
        ("1 + 1", "written like"),
        ("cosine(final=open('x'))", "written like"),
        ("cosine(final=2)", r"final is a share, in \[0, 1\]: got 2"),
        ("cosine(warmup=-1)", "warmup must be a number of steps, 0 or more: got -1"),
        ("cosine(warmup=0.5)", "warmup must be a number of steps"),
    ],
)
def test_a_text_that_is_no_schedule_is_refused(text, rule):
    with pytest.raises(ValueError, match=rule):
        read_schedule(text)


def test_a_warm_up_that_meets_the_decay_is_refused():
    WSD(5, decay=0.5).check(10)
    with pytest.raises(ValueError, match=r"got wsd\(warmup=6, decay=0.5, final=0.0\) in 10 steps, room for 5"):
        WSD(6, decay=0.5).check(10)
    with pytest.raises(ValueError, match="room for 10"):
        Cosine(11).check(10)
