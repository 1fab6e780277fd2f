"""Laws of the windows that training sees: a function of seed and number, each once an epoch, the shares kept throughout."""

import numpy as np
import pytest
import torch

from zamba_lab.train import Mixture
from zamba_lab.train.mixture import CYCLE

TOKENS = np.arange(1000, dtype=np.uint16)
OTHER = np.arange(2000, 2300, dtype=np.int32)


def starts(data: Mixture, first: int, count: int, length: int = 37, seed: int = 5) -> np.ndarray:
    return np.array([one.start for one in data.windows(first, count, length, seed)])


def test_an_epoch_shows_each_window_once():
    data, per_epoch = Mixture.of(TOKENS), 999 // 37 - 1
    epochs = [np.sort(starts(data, k * per_epoch, per_epoch)) for k in range(3)]
    for found in epochs:
        assert set(np.diff(found)) == {37}, found
    assert len({found[0] for found in epochs}) > 1, "each epoch is cut at another offset"
    assert data.epochs(3 * per_epoch, 37) == {"data": 3.0}


def test_a_window_is_a_function_of_seed_and_number_alone():
    data = Mixture({"a": TOKENS, "b": OTHER}, {"a": 0.7, "b": 0.3})
    in_order = data.windows(0, 60, 37, 5)
    for at in (59, 3, 11):
        assert data.windows(at, 1, 37, 5) == in_order[at : at + 1]
    assert data.windows(0, 60, 37, 6) != in_order


def test_a_window_is_followed_by_one_token():
    data = Mixture.of(TOKENS)
    rows = data.rows(data.windows(0, 3, 37, 5), 37)
    assert rows.shape == (3, 38) and rows.dtype == np.int64
    assert (np.diff(rows, axis=1) == 1).all()


@pytest.mark.parametrize("shares", [(0.6, 0.4), (0.999, 0.001), (1 / 3, 2 / 3)])
def test_two_shares_are_kept_to_within_a_window_at_every_moment(shares):
    data = Mixture({"a": TOKENS, "b": OTHER}, dict(zip("ab", shares)))
    first = np.cumsum([one.corpus == "a" for one in data.windows(0, 2 * CYCLE + 77, 37, 5)])
    n = np.arange(1, len(first) + 1)
    assert np.abs(first - shares[0] * n).max() <= 1, "a third is off by a third of a window each thousand"


def test_many_shares_are_kept_and_come_out_exactly():
    shares = {"a": 0.5, "b": 0.25, "c": 0.125, "d": 0.125}
    data = Mixture(dict.fromkeys(shares, TOKENS), shares)
    names = [one.corpus for one in data.windows(0, CYCLE, 37, 5)]
    for name, share in shares.items():
        count = np.cumsum([one == name for one in names])
        assert count[-1] == share * CYCLE and np.abs(count - share * np.arange(1, CYCLE + 1)).max() < 2, name


def test_each_corpus_has_its_own_epochs_whatever_is_beside_it():
    """Corpus a alone shows the same windows in the same order as its part of a mixture."""
    mixed = Mixture({"a": TOKENS, "b": OTHER}, {"a": 0.6, "b": 0.4}).windows(0, 500, 37, 5)
    parts = {name: [one.start for one in mixed if one.corpus == name] for name in "ab"}
    assert parts["a"] == list(starts(Mixture({"a": TOKENS}), 0, len(parts["a"])))
    per_epoch = 299 // 37 - 1
    for k in range(len(parts["b"]) // per_epoch):
        assert len(set(parts["b"][k * per_epoch : (k + 1) * per_epoch])) == per_epoch
    epochs = Mixture({"a": TOKENS, "b": OTHER}, {"a": 0.6, "b": 0.4}).epochs(500, 37)
    assert epochs == {"a": 300 / 26, "b": 200 / per_epoch}


def test_left_out_shares_follow_the_sizes_and_the_published_mixture_is_sixty_to_forty():
    assert Mixture({"a": TOKENS, "b": OTHER}).shares == {"a": 1000 / 1300, "b": 300 / 1300}
    assert Mixture.annealing(TOKENS, OTHER).shares == {"replay": 0.6, "fresh": 0.4}
    assert list(Mixture({"a": TOKENS, "b": OTHER}, {"a": 0.0, "b": 1.0}).corpora) == ["b"]


def test_a_memory_mapped_array_gives_the_same_windows_and_facts(tmp_path):
    np.save(tmp_path / "tokens.npy", TOKENS)
    mapped, whole = Mixture.of(np.load(tmp_path / "tokens.npy", mmap_mode="r")), Mixture.of(TOKENS)
    windows = whole.windows(2, 9, 37, 5)
    np.testing.assert_array_equal(mapped.rows(windows, 37), whole.rows(windows, 37))
    assert mapped.facts() == whole.facts() != Mixture.of(TOKENS[::-1].copy()).facts()


@pytest.mark.parametrize(
    "corpora, shares, rule",
    [
        ({}, None, "each corpus has a share"),
        ({"a": TOKENS[:0]}, None, r"n >= 1: 'a' is shape \(0,\), uint16"),
        ({"a": TOKENS.astype(float)}, None, "array .n,. of integers.*float64"),
        ({"a": [1, 2]}, None, "'a' is a list"),
        ({"a": torch.arange(9)}, None, "'a' is a Tensor"),
        ({"a": TOKENS, "b": OTHER}, {"a": float("nan"), "b": 0.5}, "0 or more"),
        ({"a": TOKENS}, {"b": 1.0}, r"got corpora \['a'\], shares of \['b'\]"),
        ({"a": TOKENS, "b": OTHER}, {"a": 0.6, "b": 0.5}, "be 1 together"),
        ({"a": TOKENS, "b": OTHER}, {"a": 1.5, "b": -0.5}, "0 or more"),
        ({"a": TOKENS, "b": OTHER}, {"a": 0.9999, "b": 0.0001}, "0 or at least 1 / 1000"),
    ],
)
def test_what_is_no_mixture_is_refused(corpora, shares, rule):
    with pytest.raises(ValueError, match=rule):
        Mixture(corpora, shares)


def test_too_few_tokens_are_refused():
    with pytest.raises(ValueError, match="more than 2 [*] length tokens: got 74 tokens in 'data', length=37"):
        Mixture.of(TOKENS[:74]).windows(0, 1, 37, 0)
    Mixture.of(TOKENS[:75]).windows(0, 1, 37, 0)
