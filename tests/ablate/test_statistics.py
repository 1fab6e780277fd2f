"""The tests hold their level and their promises, by simulation; where theory or a library has a number, it is that number."""

import math

import numpy as np
import pytest
from scipy.stats import binom, binomtest, permutation_test

from zamba_lab.ablate import Claim
from zamba_lab.ablate import statistics as st
from zamba_lab.ablate.design import detectable

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
def test_studies_of_arms_that_are_the_same_find_something_in_at_most_five_percent(draw, n):
    """Each study has 4 arms against a base, the base's cells the same in all contrasts, corrected by Holm."""
    arms, base = draw((RESAMPLES, 4, n), 1), draw((RESAMPLES, 1, n), 2)
    p = st.holm(st.sign_flip(arms - base).T)
    false = int((p <= 0.05).any(0).sum())
    assert false <= 0.05 * RESAMPLES, f"{false} of {RESAMPLES} studies"


@pytest.mark.parametrize("n", [6, 8, 20])
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_a_planted_effect_of_the_promised_size_beyond_the_threshold_is_found_at_the_promised_power(n, threshold):
    effect = detectable(Claim("a", "b", threshold=threshold), n, 0.05, 0.8)
    noise = np.random.default_rng(77).normal(size=(RESAMPLES, n))
    found = int((st.more_than(noise + threshold + effect, threshold) <= 0.05).sum())
    assert binomtest(found, RESAMPLES, 0.8, "less").pvalue > 0.01, f"{found} of {RESAMPLES} at {effect:.2f} sd"
    smaller = (st.more_than(noise + threshold + 0.6 * effect, threshold) <= 0.05).mean()
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
@pytest.mark.parametrize("n", [6, 60, 200])
def test_arms_that_differ_by_the_margin_are_equivalent_in_at_most_five_percent_whatever_the_humps(n, hump):
    random, (shift, share, by) = np.random.default_rng(n), hump
    d = shift + 0.001 * random.normal(size=(20 * RESAMPLES, n)) + np.where(random.random((20 * RESAMPLES, n)) < share, by, 0)
    false = int((st.bounded(d.clip(-1, 1), 0.05, 1.0) <= 0.05).sum())
    assert false <= 0.05 * len(d), f"{false} of {len(d)}"


def test_equivalence_without_an_assumption_takes_fifty_nine_seeds_of_an_accuracy_and_is_then_found():
    assert st.seeds_to_be_equivalent(0.05, 1.0) == 59 and st.seeds_to_be_equivalent(50, 400) == 23
    assert st.bounded(np.zeros(58), 0.05, 1.0) > 0.05 >= st.bounded(np.zeros(59), 0.05, 1.0)
    same = 0.001 * np.random.default_rng(4).normal(size=(RESAMPLES, 66))
    assert (st.bounded(same, 0.05, 1.0) <= 0.05).mean() > 0.95, "equal arms are not seen to be"
    assert st.bounded(np.full(6, 0.05), 0.05, 1.0) == 1 and st.bounded(np.zeros(6), 1.0, 1.0) == 0


# draws (studies, n) of differences, and their true median
MEDIANS = {
    "normal": (lambda random, shape: random.normal(size=shape), 0.0),
    "skewed": (lambda random, shape: random.exponential(size=shape), math.log(2)),
    "rare failures": (lambda random, shape: 0.01 * random.normal(size=shape) - 0.5 * (random.random(shape) < 0.125), None),
    "few values": (lambda random, shape: random.integers(0, 3, size=shape).astype(float), 1.0),
}


@pytest.mark.parametrize("n", range(5, 13))
@pytest.mark.parametrize("kind", MEDIANS)
def test_an_interval_that_is_drawn_covers_the_median_in_95_percent(kind, n):
    draw, true = MEDIANS[kind]
    true = float(np.median(draw(np.random.default_rng(0), 1_000_000))) if true is None else true
    values = draw(np.random.default_rng(n), (4 * RESAMPLES, n))
    if n < st.LEAST_SEEDS:
        assert all(math.isnan(end) for end in st.median_interval(values[0])), "what cannot be covered is drawn"
        return
    low, high = (int(end) for end in st.median_interval(range(n)))  # which of the ordered values
    ordered = np.sort(values, axis=1)
    covered = int(((ordered[:, low] <= true) & (true <= ordered[:, high])).sum())
    assert st.median_interval(values[0]) == (ordered[0, low], ordered[0, high])
    assert binomtest(covered, len(values), 0.95, "less").pvalue > 0.01, f"{covered} of {len(values)}"


@pytest.mark.parametrize("share", [0.02, 1 / 8, 0.4])
def test_the_share_that_may_not_be_alike_covers_the_true_one_in_at_least_95_percent(share):
    """Exactly: over all counts that eight seeds may show."""
    covered = sum(binom.pmf(seen, 8, share) for seen in range(9) if st.at_most(seen, 8) >= share)
    assert covered >= 0.95, f"{covered:.4f}"
    assert st.at_most(0, 6) == pytest.approx(1 - 0.05 ** (1 / 6)) and st.at_most(6, 6) == 1


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
@pytest.mark.parametrize("n", [5, 6, 9])
def test_exact_p_values_are_scipys(alternative, n):
    d = np.random.default_rng(n).normal(0.3, 1, size=(3, n)).round(1)
    found = st.sign_flip(d, alternative)
    for row, p in zip(d, found):
        theirs = permutation_test((row,), np.mean, permutation_type="samples", alternative=alternative, n_resamples=1 << 14)
        assert p == pytest.approx(theirs.pvalue)


def test_with_many_seeds_flips_are_drawn_and_p_is_near_the_exact_one_and_never_0():
    d = np.random.default_rng(1).normal(0.4, 1, size=13)
    exact = permutation_test((d,), np.mean, permutation_type="samples", alternative="greater", n_resamples=1 << 14).pvalue
    assert st.sign_flip(d, "greater") == pytest.approx(exact, abs=0.02) and st.sign_flip(np.ones(40), "greater") > 0


def test_a_threshold_is_part_of_what_is_tested():
    d = np.array([0.1, 0.2, 0.3, 0.1, 0.2, 0.4])
    assert st.more_than(d)[()] == pytest.approx(1 / 64) and st.more_than(d, 0.05)[()] == pytest.approx(1 / 64)
    assert st.more_than(d, 0.15)[()] > 0.05, "the mean is above 0.15, and that is not shown"
    assert st.sign_flip(np.zeros(6))[()] == 1 and st.tost(np.zeros(6), 0.05)[()] == pytest.approx(1 / 64)


def test_holm_is_that_of_statsmodels_along_the_first_axis():
    from statsmodels.stats.multitest import multipletests

    p = np.random.default_rng(0).random((5, 3)) * 0.1
    np.testing.assert_allclose(st.holm(p), np.stack([multipletests(column, method="holm")[1] for column in p.T], 1))
    assert st.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06]) and len(st.holm([])) == 0


def test_intervals_are_those_of_the_books():
    low, high = st.wilson(3, 3)
    assert (low, high) == (pytest.approx(3 / (3 + 1.959964**2), abs=1e-6), 1)
    assert (
        st.median_interval([3, 1, 2, 6, 5, 4]) == (1, 6)
        and st.median_interval(range(9)) == (1, 7)
        and st.median_interval(range(12)) == (2, 9)
    )
    assert all(math.isnan(end) for end in st.median_interval([0.2] * 5))


def test_the_time_to_solve_counts_those_who_did_not():
    found = st.time_to_solve([100, 200, 300, 800], [True, True, True, False])
    assert found.median == 200 or found.median == 300
    assert found.mean == pytest.approx((100 + 200 + 300 + 800) / 4)
    nobody = st.time_to_solve([800, 800], [False, False])
    assert math.isinf(nobody.median) and nobody.mean == 800
    everybody = st.time_to_solve([100, 100], [True, True])
    assert everybody.median == 100 and everybody.mean == 100
