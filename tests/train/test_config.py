"""Laws of the arguments: checked once, the same from code, a file or a command line."""

from dataclasses import fields

import numpy as np
import pytest

from zamba_lab.train import WSD, Exponential, TrainConfig, annealing
from zamba_lab.train.config import defaults, from_values

CONFIG = TrainConfig(steps=200, lr=2.0, schedule=WSD(warmup=20, decay=0.25, final=0.1))


def test_the_rate_is_the_peak_times_the_schedule():
    assert [CONFIG.lr_at(step) for step in (0, 19, 150)] == [2.0 / 20, 2.0, 2.0]
    assert CONFIG.lr_at(175) == pytest.approx(0.2 + 1.8 * 0.5)


def test_a_schedule_may_be_a_text():
    assert TrainConfig(steps=200, lr=2.0, schedule="wsd(warmup=20, decay=0.25, final=0.1)") == CONFIG


def test_a_config_comes_back_from_its_facts_as_values_or_as_texts():
    for config in (CONFIG, TrainConfig(max_epochs=None, documents=True)):
        assert from_values(config.facts()) == config
        assert from_values({name: str(value) for name, value in config.facts().items()}) == config


def test_annealing_is_the_trunk_with_a_schedule_and_an_order_of_its_own():
    phase = annealing(CONFIG, 100, lr=1.5)
    assert phase.schedule == Exponential(warmup=1, factor=0.01) and (phase.steps, phase.lr) == (100, 1.5)
    assert phase.seed != CONFIG.seed and phase.batch == CONFIG.batch
    assert phase.lr_at(99) == pytest.approx(0.015, rel=0.06)


def test_every_field_says_what_it_is_about():
    assert list(defaults()) == [one.name for one in fields(TrainConfig)] and all(about for _, about in defaults().values())


@pytest.mark.parametrize(
    "wrong, rule",
    [
        ({"steps": 0}, "steps must be 1 or more: got 0"),
        ({"length": 1}, "length must be 2 or more: got 1"),
        ({"keep": 1}, "keep must be 2 or more: got 1"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"lr": float("nan")}, "lr must be above 0: got nan"),
        ({"beta2": 1.0}, r"beta2 must be in \[0, 1\): got 1.0"),
        ({"schedule": "wsd(warmup=6, decay=0.5)", "steps": 10}, "in 10 steps, room for 5"),
        ({"schedule": "square"}, "got 'square'"),
        ({"accumulate": 9}, "accumulate must be at most batch.*accumulate=9, batch=8"),
        ({"max_epochs": 0}, "max_epochs must be above 0"),
        ({"precision": "fp16"}, "one of auto, float32, bf16: got 'fp16'"),
        ({"steps": 1.5}, "steps must be of type int: got 1.5"),
        ({"steps": "5"}, "steps must be of type int: got '5'"),
        ({"batch": True}, "batch must be of type int: got True"),
        ({"lr": "0.1"}, "lr must be of type float: got '0.1'"),
        ({"lr": float("inf")}, "lr must be finite: got inf"),
        ({"clip": float("nan")}, "clip must be above 0: got nan"),
        ({"weight_decay": -0.1}, "weight_decay must be 0 or more: got -0.1"),
        ({"weight_decay": float("nan")}, "weight_decay must be 0 or more: got nan"),
        ({"max_epochs": "all"}, "max_epochs must be of type float: got 'all'"),
        ({"documents": 1}, "documents must be of type bool: got 1"),
        ({"schedule": 0.5}, "schedule must be of type Schedule: got 0.5"),
        ({"schedule": "wsd(decay='x')"}, "decay is a share"),
        ({"schedule": "wsd(warmup=True)"}, "warmup must be a number of steps"),
        ({"schedule": "(" * 1000}, "a schedule is written like"),
        ({"seed": -1}, "seed must be 0 or more: got -1"),
        ({"precision": None}, "precision must be of type str: got None"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(wrong, rule):
    with pytest.raises(ValueError, match=rule):
        TrainConfig(**wrong)


@pytest.mark.parametrize(
    "wrong, rule",
    [
        ({"stepz": 3}, "no such training argument: stepz; there are steps, batch"),
        ({"steps": "many"}, "steps must be of type int: got 'many'"),
        ({"steps": 1.5}, "steps must be of type int: got 1.5"),
        ({"documents": "perhaps"}, "documents must be of type bool"),
        ({"lr": None}, "lr must be of type float: got None"),
    ],
)
def test_values_of_the_wrong_kind_are_refused(wrong, rule):
    with pytest.raises(ValueError, match=rule):
        from_values(wrong)


def test_numbers_of_numpy_are_numbers():
    """And plain ones afterwards: a checkpoint holds them."""
    config = TrainConfig(steps=np.int64(200), lr=np.float32(0.5))
    assert (config.steps, config.lr) == (200, 0.5) and type(config.facts()["steps"]) is int and type(config.lr) is float
