"""What finding duplicates promises, on planted text."""

import random
from collections import Counter

import numpy as np
import pytest
from corpora_planted import document, hard_negatives, near_pairs, vocabulary

from zamba_lab.corpora.duplicates import THRESHOLD, find_duplicates
from zamba_lab.corpora.grams import band_keys, chance, signatures, similarity


def found_among(texts: list[str], order=None, threshold: float = THRESHOLD):
    keys = band_keys(signatures(texts, len(texts)))
    return find_duplicates([text.encode() for text in texts], keys, order or range(len(texts)), texts.__getitem__, threshold)


def test_near_duplicates_are_found_and_others_are_kept():
    pairs = near_pairs(seed=0, count=450)
    negatives = hard_negatives(seed=1, count=150)
    rng = random.Random(2)
    words = vocabulary(rng)
    unrelated = [document(rng, words, rng.randint(30, 3000)) for _ in range(150)]
    texts = [text for pair in pairs for text in pair[:2]] + negatives + unrelated
    found = found_among(texts)
    caught = [2 * k + 1 in found for k in range(len(pairs))]
    expected = np.mean([chance(pair[3]) for pair in pairs])
    kinds = Counter(pair[2] for pair, good in zip(pairs, caught) if good)
    recall = np.mean(caught)
    assert recall >= 0.95, (recall, expected, kinds)
    assert abs(recall - expected) < 4 * np.sqrt(expected * (1 - expected) / len(pairs)), (recall, expected)
    dropped = [number for number in range(2 * len(pairs), len(texts)) if number in found]
    assert len(dropped) <= 0.01 * (len(negatives) + len(unrelated)), dropped
    assert not any(2 * k in found for k in range(len(pairs)))  # of a pair the first stays


@pytest.mark.parametrize("kind", ["words changed", "truncated", "header changed"])
def test_every_kind_of_edit_is_found(kind):
    pairs = [pair for pair in near_pairs(seed=3, count=300, low=0.94) if pair[2] == kind]
    found = found_among([text for pair in pairs for text in pair[:2]])
    assert np.mean([2 * k + 1 in found for k in range(len(pairs))]) >= 0.97


def test_of_a_chain_only_the_first_in_order_stays():
    rng = random.Random(4)
    words = vocabulary(rng)
    base = document(rng, words, 3000)
    texts = [base[: int(len(base) * share)] for share in (0.9, 0.95, 1.0)]  # the ends of the chain are less alike
    assert similarity(texts[0], texts[2]) < 0.92
    for first in range(3):
        order = [first, *(k for k in range(3) if k != first)]
        found = found_among(texts, order, threshold=0.94)
        assert first not in found and {k: keeper for k, (keeper, _) in found.near.items()} == {k: first for k in range(3) if k != first}


def test_exact_copies_go_to_the_first_in_order():
    texts = [
        "the same text, long enough to be one of its own",
        "another text that is quite different from it",
        "the same text, long enough to be one of its own",
    ]
    assert found_among(texts).exact == {2: 0}
    assert found_among(texts, order=[2, 1, 0]).exact == {0: 2}
    assert not found_among(texts).near


def test_the_similarity_of_a_link_is_at_least_the_threshold():
    pairs = near_pairs(seed=5, count=60, low=0.8)
    texts = [text for pair in pairs for text in pair[:2]]
    found = found_among(texts)
    assert found.near
    for document_, (keeper, alike) in found.near.items():
        assert alike >= THRESHOLD
        assert similarity(texts[document_], texts[keeper]) == pytest.approx(alike)  # pairs: each link is to the keeper


def test_many_pages_of_one_template_stay_cheap():
    rng = random.Random(6)
    words = vocabulary(rng)
    page, looked_at = document(rng, words, 400), []
    texts = [page[:200] + document(rng, words, 60) + page[200:] for _ in range(200)]
    keys = np.tile(band_keys(signatures(texts[:1], 1)), (len(texts), 1))  # the worst case: all in one bucket
    find_duplicates([text.encode() for text in texts], keys, range(len(texts)), lambda k: looked_at.append(k) or texts[k], threshold=0.99)
    assert len(looked_at) < 30 * len(texts), len(looked_at)


@pytest.mark.parametrize("threshold", [0, -1, 1.5])
def test_a_threshold_that_is_no_similarity_is_refused(threshold):
    with pytest.raises(ValueError, match=r"in \(0, 1\]"):
        found_among(["a", "b"], threshold=threshold)
