"""The tests hold their level and their promises, by simulation; where theory has a number, it is that number."""

import gc
import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from zamba_lab.ablate import statistics as st

RESAMPLES = 1000


def two_humped(shape, seed: int) -> np.ndarray:
    """Accuracies as recall gives them: a seed solves its task, or stays on a plateau."""
    random = np.random.default_rng(seed)
    return np.where(random.random(shape) < 0.6, 0.99 + 0.005 * random.random(shape), 0.25 + 0.05 * random.normal(size=shape))


DRAWS = {
    "two humps": two_humped,
    "normal": lambda shape, seed: np.random.default_rng(seed).normal(size=shape),
    "heavy tails": lambda shape, seed: np.random.default_rng(seed).standard_t(2, size=shape),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
@pytest.mark.parametrize("n", [6, 8])
def test_studies_of_arms_that_are_the_same_find_something_in_at_most_five_percent(draw, n, monkeypatch):
    """Each study has 4 arms against a base, the base's cells the same in all contrasts, corrected by Holm."""
    monkeypatch.setattr(gc, "collect", lambda: 0)  # statsmodels calls it every time
    arms, base = draw((RESAMPLES, 4, n), 1), draw((RESAMPLES, 1, n), 2)
    p = st.sign_flip(arms - base)
    false = sum(min(st.holm(study)) <= 0.05 for study in p)
    assert false <= 0.05 * RESAMPLES, f"{false} of {RESAMPLES} studies"


@pytest.mark.parametrize("n", [6, 8])
def test_a_planted_effect_of_the_promised_size_is_found_at_the_promised_power(n):
    effect = st.detectable(n, alpha=0.05, power=0.8)
    found = (st.sign_flip(np.random.default_rng(77).normal(size=(RESAMPLES, n)) + effect) <= 0.05).sum()
    assert binomtest(int(found), RESAMPLES, 0.8, "less").pvalue > 0.01, f"{found} of {RESAMPLES} at {effect:.2f} sd"
    smaller = (st.sign_flip(np.random.default_rng(77).normal(size=(RESAMPLES, n)) + 0.6 * effect) <= 0.05).mean()
    assert smaller < 0.75, "the least effect is not the least"


@pytest.mark.parametrize("scale", [0.02, 0.1])
def test_arms_that_differ_by_the_margin_and_scatter_symmetrically_are_alike_in_at_most_five_percent(scale):
    d = 0.05 + scale * np.random.default_rng(3).normal(size=(10 * RESAMPLES, 8))
    false = int((st.tost(d, 0.05) <= 0.05).sum())
    assert false <= 0.05 * len(d), f"{false} of {len(d)}"
    same = 0.01 * np.random.default_rng(3).normal(size=(RESAMPLES, 8))
    assert (st.tost(same, 0.05) <= 0.05).mean() > 0.95, "equal arms are not seen to be"


# what most seeds differ by, the share of seeds that fail besides, and by how much: means of the margin, 0.05, or beyond
HUMPS = {
    "one in eight fails": (0, 1 / 8, 0.45),
    "few fail wholly": (0, 0.05, 1.0),
    "half fail a little": (0, 0.5, 0.1),
    "a shift and few that fail": (0.025, 0.025, 1.0),
    "a shift": (0.05, 0, 0),
}


@pytest.mark.parametrize("hump", HUMPS.values(), ids=HUMPS)
@pytest.mark.parametrize("n", [6, 8, 60, 64, 100, 200])
def test_arms_that_differ_by_the_margin_are_equivalent_in_at_most_five_percent_whatever_the_humps(n, hump):
    random, (shift, share, by) = np.random.default_rng(n), hump
    d = shift + 0.001 * random.normal(size=(20 * RESAMPLES, n)) + np.where(random.random((20 * RESAMPLES, n)) < share, by, 0)
    false = int((st.bounded(d.clip(-1, 1), 0.05, 1.0) <= 0.05).sum())
    assert false <= 0.05 * len(d), f"{false} of {len(d)}"


def test_equivalence_takes_sixty_seeds_of_an_accuracy_and_is_then_found():
    assert st.seeds_to_be_equivalent(0.05, 1.0) == 59 and st.seeds_to_be_equivalent(50, 400) == 23
    assert st.bounded(np.zeros(58), 0.05, 1.0) > 0.05 >= st.bounded(np.zeros(59), 0.05, 1.0)
    same = 0.001 * np.random.default_rng(4).normal(size=(RESAMPLES, 66))
    assert (st.bounded(same, 0.05, 1.0) <= 0.05).mean() > 0.95, "equal arms are not seen to be"
    assert st.bounded(np.full(6, 0.05), 0.05, 1.0) == 1 and st.bounded(np.zeros(6), 1.0, 1.0) == 0


@pytest.mark.parametrize("share", [0.02, 1 / 8, 0.4])
def test_the_share_that_may_not_be_alike_covers_the_true_one_in_at_least_95_percent(share):
    """Exactly: over all counts that eight seeds may show."""
    covered = sum(binom.pmf(seen, 8, share) for seen in range(9) if st.at_most(seen, 8) >= share)
    assert covered >= 0.95, f"{covered:.4f}"
    assert st.at_most(0, 6) == pytest.approx(1 - 0.05 ** (1 / 6)) and st.at_most(6, 6) == 1


def test_exact_p_values_are_the_counts_of_sign_flips():
    assert st.sign_flip([0.1, 0.2, 0.3, 0.1, 0.2, 0.4])[()] == pytest.approx(2 / 64)
    assert st.sign_flip([0.1, 0.2, 0.3, 0.1, 0.2, 0.4], "greater")[()] == pytest.approx(1 / 64)
    assert st.sign_flip([0.1, 0.2, 0.3, 0.1, 0.2])[()] == pytest.approx(2 / 32), "five seeds can never do it"
    assert st.sign_flip(np.zeros(6))[()] == 1 and st.tost(np.zeros(6), 0.05)[()] == pytest.approx(1 / 64)


def test_below_six_seeds_and_where_nothing_is_shown_there_is_no_verdict():
    assert st.verdict(5, 0.5, 0.0, 0.0, 0.0, 5) == "no verdict (5 seeds, 6 needed)"
    assert st.verdict(6, 0.5, 0.2, 0.2, 0.9, 3) == "no verdict"
    assert st.verdict(6, 0.5, 0.03, 0.2, 0.9, 0) == "more" and st.verdict(6, -0.5, 0.03, 0.2, 0.9, 0) == "less"
    assert st.verdict(6, 0.01, 0.3, 0.02, 0.7, 6) == "alike in 6 of 6 seeds (up to 39% may not be)"
    assert st.verdict(8, 0.01, 0.03, 0.02, 0.7, 7) == "more, alike in 7 of 8 seeds (up to 47% may not be)"
    assert st.verdict(60, 0.01, 0.3, 0.02, 0.02, 60) == "equivalent"
    assert st.verdict(60, 0.01, 0.03, 0.02, 0.02, 60) == "more, within the margin"
    assert math.isinf(st.detectable(5))


def test_intervals_are_those_of_the_books():
    low, high = st.wilson(3, 3)
    assert (low, high) == (pytest.approx(3 / (3 + 1.959964**2), abs=1e-6), 1)
    assert st.interval([0.2, 0.2, 0.2]) == (pytest.approx(0.2), pytest.approx(0.2)) and st.interval([0.3]) == (0.3, 0.3)
    low, high = st.interval(np.random.default_rng(0).normal(1, 0.1, size=40))
    assert 0.93 < low < 1 < high < 1.07
    assert st.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06]) and st.holm([]) == []


def test_the_time_to_solve_counts_those_who_did_not():
    found = st.time_to_solve([100, 200, 300, 800], [True, True, True, False])
    assert found.median == 200 or found.median == 300
    assert found.mean == pytest.approx((100 + 200 + 300 + 800) / 4)
    nobody = st.time_to_solve([800, 800], [False, False])
    assert math.isinf(nobody.median) and nobody.mean == 800
    everybody = st.time_to_solve([100, 100], [True, True])
    assert everybody.median == 100 and everybody.mean == 100
