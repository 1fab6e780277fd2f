"""Laws of the learning rate and of the arguments."""
from dataclasses import replace

import pytest

from zamba_lab.train import TrainConfig

CONFIG = TrainConfig(steps=200, lr=2.0, warmup=20, decay=0.25, final_lr=0.1)


@pytest.mark.parametrize("schedule", ["wsd", "cosine"])
def test_the_rate_rises_to_the_peak_and_falls_to_the_floor(schedule):
    config = replace(CONFIG, schedule=schedule)
    rates = [config.lr_at(step) for step in range(config.steps)]
    assert rates[0] == pytest.approx(2.0 / 20) and max(rates) == rates[19] == pytest.approx(2.0)
    assert rates[:20] == sorted(rates[:20]) and rates[19:] == sorted(rates[19:], reverse=True)
    assert 0.2 < rates[-1] < 0.26, rates[-1]


def test_wsd_is_constant_until_the_decay():
    rates = [CONFIG.lr_at(step) for step in range(CONFIG.steps)]
    assert set(rates[19:151]) == {2.0}
    assert rates[175] == pytest.approx(0.2 + 1.8 * 0.5)


def test_without_warmup_or_decay_the_rate_is_constant():
    config = TrainConfig(steps=7, lr=0.5, warmup=0, decay=0.0)
    assert {config.lr_at(step) for step in range(7)} == {0.5}


@pytest.mark.parametrize("wrong, rule", [
    ({"steps": 0}, "steps must be 1 or more: got 0"), ({"lr": 0.0}, "lr must be above 0"),
    ({"lr": float("nan")}, "lr must be above 0: got nan"), ({"decay": 1.5}, r"decay is a share, in \[0, 1\]: got 1.5"),
    ({"warmup": 6, "decay": 0.5, "steps": 10}, "got warmup=6, steps=10, decay=0.5"), ({"schedule": "linear"}, "one of .*got 'linear'"),
])
def test_arguments_that_do_not_fit_are_refused(wrong, rule):
    with pytest.raises(ValueError, match=rule):
        TrainConfig(**wrong)
