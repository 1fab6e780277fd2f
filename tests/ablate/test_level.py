"""From records to verdicts, a thousand made-up studies at a time: nothing is found where nothing is, and what is there is.

`test_statistics` shows it of the tests by themselves; here it is shown of what a report prints, Holm's correction included.
"""

import gc
import math
from dataclasses import replace

import numpy as np
import pytest
from ablate.tiny import study
from scipy.stats import binomtest

from zamba_lab.ablate import Claim, claim_results, contrasts
from zamba_lab.ablate import statistics as st

STUDIES, SEEDS = 1000, 8
ONE = study(seeds=range(SEEDS), axes={"conv": [True, False]})
THREE = study(
    seeds=range(SEEDS),
    axes={"lora_rank": [2, 0, 4, 8]},
    claims=(Claim("none is better", "lora_rank=0", "accuracy", "more"), Claim("more is worse", "lora_rank=4", "accuracy", "less")),
)
NOISE = 0.02


@pytest.fixture(autouse=True)
def ask(monkeypatch):
    """Have the exact tests of many studies made in one call, whose answers `contrasts` then gets: a call takes as long for one.

    Left out is what no verdict here depends on: intervals, and statsmodels' garbage collection.
    """
    known, exact = {}, st.sign_flip

    def answered(d, alternative="two-sided"):
        return known[d.tobytes(), alternative] if (d.tobytes(), alternative) in known else exact(d, alternative)

    def ask(differences, alternative="two-sided"):
        rows = differences.reshape(-1, SEEDS)
        known.update({(row.tobytes(), alternative): p for row, p in zip(rows, exact(rows, alternative))})

    monkeypatch.setattr(st, "sign_flip", answered)
    monkeypatch.setattr(st, "interval", lambda *_: (math.nan, math.nan))
    monkeypatch.setattr(gc, "collect", lambda: 0)
    return ask


def normal(random, shape):
    return 0.5 + NOISE * random.normal(size=shape)


def two_humped(random, shape):
    """A seed solves its task, stays on a plateau, or (no number) diverges."""
    kind, jitter = random.random(shape), 0.01 * random.random(shape)
    return np.where(kind < 0.6, 0.98 + jitter, np.where(kind < 0.9, 0.25 + jitter, np.nan))


def made_up(one, accuracies):
    """arm -> seed -> record, as verdicts read it from a store; accuracies: (arms, seeds), the base first, nan: diverged."""
    return {
        arm.name: {
            seed: {"status": "diverged" if np.isnan(value) else "unsolved", "accuracy": float(value)} for seed, value in zip(one.seeds, row)
        }
        for arm, row in zip(one.every_arm, accuracies)
    }


def studies(one, draw, seed, effect=0.0):
    """Accuracies of so many studies of the same arms, and the differences from the base: (studies, arms, seeds).

    effect: what the first arm has more than the base.
    """
    values = draw(np.random.default_rng(seed), (STUDIES, len(one.every_arm), SEEDS))
    values[:, 1] += effect
    guessed = np.where(np.isnan(values), one.task.chance, values)
    return values, guessed[:, 1:] - guessed[:, :1]


def verdicts_of(one, found):
    return [each.verdict for each in contrasts(one, found, ("accuracy",))]


@pytest.mark.parametrize("draw", [normal, two_humped])
def test_at_most_one_in_twenty_studies_of_arms_that_are_the_same_finds_a_difference(draw, ask, monkeypatch):
    """Three arms that are the base, on one axis: a study is wrong if any of them is said to be more or less."""
    monkeypatch.setattr(st, "tost", lambda *_: 1.0)  # whether they are equivalent is another question
    values, differences = studies(THREE, draw, seed=1)
    ask(differences)
    found = [verdicts_of(THREE, made_up(THREE, one)) for one in values]
    assert {len(one) for one in found} == {3} and {word for one in found for word in one} == {"more", "less", "no verdict"}
    wrong = sum(set(one) != {"no verdict"} for one in found)
    assert wrong <= 0.05 * STUDIES, f"{wrong} of {STUDIES} studies"


def test_at_most_one_in_twenty_studies_of_arms_that_are_the_same_confirms_a_claim(ask, monkeypatch):
    monkeypatch.setattr(st, "tost", lambda *_: 1.0)
    values, differences = studies(THREE, two_humped, seed=2)
    ask(differences, "greater")
    ask(differences, "less")
    answers = [{each.answer for each in claim_results(THREE, made_up(THREE, one))} for one in values]
    wrong = sum("confirmed" in one for one in answers)
    assert 0 < wrong <= 0.05 * STUDIES, f"{wrong} of {STUDIES} studies"


def test_a_planted_effect_is_found_as_often_as_a_report_promises(ask, monkeypatch):
    """Its size is the least that a report says so many seeds find, for the true standard deviation of the differences."""
    monkeypatch.setattr(st, "tost", lambda *_: 1.0)
    effect = st.detectable(SEEDS, THREE.alpha / 3, THREE.power) * NOISE * math.sqrt(2)
    values, differences = studies(THREE, normal, seed=3, effect=effect)
    ask(differences)
    first = [contrasts(THREE, made_up(THREE, one), ("accuracy",))[0] for one in values]
    right = sum(one.verdict == "more" for one in first)
    assert binomtest(right, STUDIES, THREE.power, "less").pvalue > 0.01, f"{right} of {STUDIES} at {effect:.4f}"
    said = math.sqrt(np.mean([one.least**2 for one in first]))
    assert said == pytest.approx(effect, rel=0.03), "what a report says is another size"


def ask_all(ask, differences):
    """Whatever a verdict and a claim about ONE.margin take."""
    for shift, alternatives in ((0.0, ("two-sided", "greater", "less")), (ONE.margin, ("greater",)), (-ONE.margin, ("less",))):
        for alternative in alternatives:
            ask(differences + shift, alternative)


def test_arms_that_differ_by_the_margin_are_called_alike_in_at_most_one_study_in_twenty(ask):
    values, differences = studies(ONE, normal, seed=4, effect=ONE.margin)
    ask_all(ask, differences)
    found = [verdicts_of(ONE, made_up(ONE, one))[0] for one in values]
    wrong = sum("alike" in word for word in found)
    # eight seeds have a level of 12 / 256 = 4.7 %, of which a thousand studies often show more than 5; test_statistics has ten thousand
    assert binomtest(wrong, STUDIES, 12 / 256, "greater").pvalue > 0.01, f"{wrong} of {STUDIES} studies"


def test_arms_of_which_one_seed_in_eight_fails_are_not_called_equivalent_and_no_claim_about_them_is_decided_wrongly(ask):
    """The mean is 0.056 lower, beyond the margin; in (7/8)^8 = 34 % of the studies no seed shows it."""
    claims = (
        Claim("wrong: it does nothing", "conv=off", "accuracy", "equal", ONE.margin),
        Claim("right: it costs more than the margin", "conv=off", "accuracy", "less", ONE.margin),
    )
    random, one = np.random.default_rng(6), replace(ONE, claims=claims)
    values = 0.95 + 0.003 * random.normal(size=(STUDIES, 2, SEEDS))
    values[:, 1] -= np.where(random.random((STUDIES, SEEDS)) < 1 / 8, 0.45, 0)
    ask_all(ask, values[:, 1:] - values[:, :1])
    said = [verdicts_of(one, made_up(one, each))[0] for each in values]
    assert not any("equivalent" in word or "within" in word for word in said)
    assert sum("alike in 8 of 8 seeds (up to 31% may not be)" in word for word in said) > 0.25 * STUDIES, "nothing is tempting here"
    answers = [[each.answer for each in claim_results(one, made_up(one, each))] for each in values]
    wrong = sum(equal == "confirmed" or less == "not confirmed" for equal, less in answers)
    assert wrong <= 0.05 * STUDIES, f"{wrong} of {STUDIES} studies"


def test_arms_that_are_the_same_are_called_alike_where_seeds_differ_little():
    alike = [made_up(ONE, 0.5 + 0.01 * values) for values in np.random.default_rng(5).normal(size=(100, 2, SEEDS))]
    assert sum(verdicts_of(ONE, one)[0].startswith("alike in 8 of 8") for one in alike) >= 90


def test_five_seeds_never_have_a_verdict():
    five = study(seeds=range(5), axes={"conv": [True, False]})
    found = made_up(five, [[0.1] * 5, [0.9] * 5])
    assert verdicts_of(five, found) == ["no verdict (5 seeds, 6 needed)"]
