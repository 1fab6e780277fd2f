"""From records to verdicts, many made-up studies at a time: nothing is found where nothing is, and what is there is.

`test_statistics` shows it of the tests by themselves; here it is shown of what a report prints, the correction over the study included.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
from ablate.tiny import study
from scipy.stats import binomtest

from zamba_lab.ablate import Claim, claim_results, contrasts
from zamba_lab.ablate.design import detectable, false_verdicts, power, proposals
from zamba_lab.ablate.verdicts import results

STUDIES, SEEDS = 200, 8
ARMS = study(seeds=range(SEEDS), axes={"lora_rank": [2, 0, 4, 8]}, metrics=("accuracy",))
CLAIMS = (
    Claim("none is better", "lora_rank=0"),
    Claim("more is worse by a point", "lora_rank=4", direction="less", threshold=0.01),
    Claim("eight differs", "lora_rank=8", direction="differs"),
    Claim("it rises", trend=("lora_rank=0", "base", "lora_rank=4", "lora_rank=8")),
)
NOISE = 0.02


def normal(random, shape):
    return 0.5 + NOISE * random.normal(size=shape)


def two_humped(random, shape):
    """A seed learns its task, stays on a plateau, or (no number) diverges."""
    kind, jitter = random.random(shape), 0.01 * random.random(shape)
    return np.where(kind < 0.6, 0.9 + jitter, np.where(kind < 0.9, 0.25 + jitter, np.nan))


def made_up(one, accuracies):
    """arm -> seed -> record, as verdicts read it from a store; accuracies: (arms, seeds), the base first, nan: diverged."""
    return {
        arm.name: {
            seed: {"status": "diverged" if np.isnan(value) else "unsolved", "accuracy": float(value)} for seed, value in zip(one.seeds, row)
        }
        for arm, row in zip(one.every_arm, accuracies)
    }


def studies(one, draw, seed):
    """Accuracies of so many studies of the same arms: (studies, arms, seeds)."""
    return draw(np.random.default_rng(seed), (STUDIES, len(one.every_arm), SEEDS))


@pytest.mark.parametrize("draw", [normal, two_humped])
@pytest.mark.parametrize("claims", [(), CLAIMS], ids=["contrasts", "claims"])
def test_at_most_one_in_twenty_studies_of_arms_that_are_the_same_says_anything(draw, claims):
    """Study-wise: three contrasts, or four claims in four directions, one of which has a threshold."""
    one = replace(ARMS, claims=claims)
    said = [{each.answer for each in results(one, made_up(one, values), one.questions)} for values in studies(one, draw, 1)]
    wrong = sum("confirmed" in answers for answers in said)
    assert set().union(*said) <= {"confirmed", "unclear"}
    assert binomtest(wrong, STUDIES, 0.05, "greater").pvalue > 0.01, f"{wrong} of {STUDIES} studies"


def test_a_study_says_how_often_it_would_be_wrong_and_is_right_about_it():
    """More studies than above, through the function that a report calls: claims at their thresholds, equality included."""
    claims = (*CLAIMS, Claim("alike", "lora_rank=8", direction="equal", threshold=0.05, symmetric=True, scatter=0.02))
    assert 0 < false_verdicts(replace(ARMS, claims=claims)) <= 0.06 and 0 < false_verdicts(ARMS) <= 0.06
    assert false_verdicts(replace(ARMS, seeds=range(6))) == 0, "six seeds can confirm nothing in a family of three"


def test_a_planted_effect_is_confirmed_as_often_as_its_study_says():
    """The least that a report says so many seeds find, and the power that a plan states, are both kept by what is then reported."""
    effect = detectable(Claim("a", "b"), SEEDS, ARMS.alpha / 2, 0.8) * NOISE * math.sqrt(2)
    claims = (
        Claim("it helps", "lora_rank=4", threshold=0.03, expected=0.03 + effect, scatter=NOISE * math.sqrt(2)),
        Claim("and this does not", "lora_rank=8"),
    )
    one = replace(ARMS, claims=claims)
    values = studies(one, normal, 3)
    values[:, 2] += 0.03 + effect
    found = sum(claim_results(one, made_up(one, each))[0].answer == "confirmed" for each in values)
    assert binomtest(found, STUDIES, 0.8, "less").pvalue > 0.01, f"{found} of {STUDIES}"
    stated, other = power(one)
    assert math.isnan(other) and binomtest(found, STUDIES, min(stated, 0.999)).pvalue > 0.01, f"{found} of {STUDIES}, stated {stated}"


def test_the_number_of_seeds_that_is_proposed_has_the_power_and_one_fewer_has_not():
    one = replace(ARMS, claims=(Claim("it helps", "lora_rank=4", expected=0.03, scatter=0.03), Claim("no", "lora_rank=8")))
    (n, nothing) = proposals(one)
    assert nothing is None and n > SEEDS
    assert power(one, n)[0] > 0.75 and power(one, n - 1)[0] < 0.85 and power(one)[0] < 0.8


def test_arms_of_which_one_seed_in_eight_fails_are_not_called_equal_unless_the_study_assumes_that_seeds_scatter_symmetrically():
    """The mean is 0.056 lower, beyond the margin; in (7/8)^8 = 34 % of the studies no seed shows it."""
    equal = Claim("wrong: it does nothing", "lora_rank=4", direction="equal", threshold=0.05)
    random = np.random.default_rng(6)
    values = 0.9 + 0.003 * random.normal(size=(STUDIES, 4, SEEDS))
    values[:, 2] -= np.where(random.random((STUDIES, SEEDS)) < 1 / 8, 0.45, 0)
    one, assumed = replace(ARMS, claims=(equal,)), replace(ARMS, claims=(replace(equal, symmetric=True),))
    cells = [made_up(one, each) for each in values]
    assert not any(claim_results(one, each)[0].answer == "confirmed" for each in cells)
    tempted = sum(claim_results(assumed, each)[0].answer == "confirmed" for each in cells)
    assert tempted > 0.25 * STUDIES, "nothing is tempting here"


def test_five_seeds_never_have_a_verdict():
    five = study(seeds=range(5), axes={"conv": [True, False]})
    found = contrasts(five, made_up(five, [[0.1] * 5, [0.9] * 5]), ("accuracy",))
    assert [each.verdict for each in found] == ["no verdict (5 seeds, 6 needed)"] and math.isnan(found[0].low)
