"""Laws of grams and signatures."""

import random

import numpy as np
import pytest
from corpora_planted import document, near_pairs, truncated, vocabulary

from zamba_lab.corpora import grams


def by_definition(a: str, b: str) -> float:
    sets = [{whole[at : at + 25] for at in range(len(whole) - 24)} for whole in map(grams.normal, (a, b))]
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@pytest.mark.parametrize("block", [25, 100, grams.BLOCK])
def test_similarity_is_that_of_the_sets_of_grams(block, monkeypatch):
    monkeypatch.setattr(grams, "BLOCK", block)
    for original, copy, _, found in near_pairs(seed=0, count=9):
        assert grams.similarity(original, copy) == found == pytest.approx(by_definition(original, copy), abs=1e-12)


def test_case_and_blanks_do_not_count():
    assert grams.similarity("One  two\n\n  THREE four five six seven eight", "one two three four five six SEVEN eight ") == 1


@pytest.mark.parametrize("text", ["", "x", "日本語", "\U0001f600" * 30, "a" * 24, "a" * 25, "a" * 26])
def test_a_text_of_any_length_has_a_signature(text):
    (signature,) = grams.signatures([text], 1)
    assert (signature != grams.EMPTY).all()
    assert grams.similarity(text, text) == 1 and grams.similarity(text, text + "something else that is long enough") < 1


def test_signatures_do_not_depend_on_the_blocks_or_the_neighbours(monkeypatch):
    rng = random.Random(0)
    words = vocabulary(rng)
    texts = [document(rng, words, size) for size in (10, 3000, 40, 500, 9000, 20)]
    whole = grams.signatures(texts, len(texts))
    np.testing.assert_array_equal(whole, np.concatenate([grams.signatures([text], 1) for text in texts]))
    monkeypatch.setattr(grams, "BLOCK", 64)
    np.testing.assert_array_equal(whole, grams.signatures(iter(texts), len(texts)))


@pytest.mark.parametrize("target", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("size", [150, 3000])
def test_each_value_agrees_with_the_probability_of_the_similarity(target, size):
    rng = random.Random(1)
    words, agree, alike = vocabulary(rng), [], []
    for _ in range(120):
        text = document(rng, words, size)
        copy = truncated(text, target, rng, words)
        a, b = grams.signatures([text, copy], 2)
        agree.append((a == b).mean())
        alike.append(grams.similarity(text, copy))
    # 128 values of 120 pairs; in a short text several of them are copies of one
    values = 120 * min(128, size // 3)
    error = np.sqrt(target * (1 - target) / values)
    assert abs(np.mean(agree) - np.mean(alike)) < 4 * error


@pytest.mark.parametrize("target", [0.8, 0.85, 0.9, 0.95])
def test_bands_are_shared_as_the_s_curve_says(target):
    rng = random.Random(2)
    words, shared, expected = vocabulary(rng), [], []
    for _ in range(250):
        text = document(rng, words, 1500)
        copy = truncated(text, target, rng, words)
        a, b = grams.band_keys(grams.signatures([text, copy], 2))
        shared.append((a == b).any())
        expected.append(grams.chance(grams.similarity(text, copy)))
    p = np.mean(expected)
    assert abs(np.mean(shared) - p) < 4 * np.sqrt(p * (1 - p) / 250) + 0.01, (np.mean(shared), p)


def test_the_s_curve_is_the_one_that_is_stated():
    found = [grams.chance(s) for s in (0.8, 0.85, 0.9, 0.93, 0.95)]
    np.testing.assert_allclose(found, [0.20, 0.46, 0.81, 0.95, 0.99], atol=0.01)
    assert np.mean([grams.chance(s) for s in np.linspace(0.9, 1, 1001)]) == pytest.approx(0.959, abs=1e-3)
