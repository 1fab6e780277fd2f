"""What each family promises beyond the laws of all."""

import numpy as np
import pytest
import torch
from tasks.oracles import follower

from zamba_lab import tasks
from zamba_lab.tasks.task import distinct, power_law_slots
from zamba_lab.tasks.text import START, name_kinds
from zamba_lab.tasks.tracking import elements, products

ASKED = tasks.IGNORE


def test_an_mqar_sequence_tells_pairs_and_asks_each_key_once():
    ids, labels = tasks.get("mqar", "laptop").batch(0, 0, 50)
    for row, below in zip(ids.tolist(), labels.tolist()):
        told = dict(zip(row[0:16:2], row[1:16:2]))
        asked = {row[t]: below[t] for t in range(64) if below[t] != ASKED}
        assert asked == told and len(told) == len(set(told.values())) == 8
        assert all(row[t] == 0 for t in range(16, 64) if below[t] == ASKED)


def test_the_place_of_a_query_does_not_betray_its_key():
    """Keys in the order of the draws would put the first pair's query first in a third of the sequences and more."""
    ids, labels = tasks.get("mqar").batch(0, 0, 4000)
    first = (labels != ASKED).int().argmax(1)
    asked = ids.gather(1, first[:, None])
    which = (ids[:, 0:8:2] == asked).int().argmax(1)
    shares = torch.bincount(which, minlength=4) / 4000
    assert (shares - 0.25).abs().max() < 0.03, shares


def test_near_query_slots_are_likelier_as_the_power_law_has_it():
    slots = power_law_slots(np.random.default_rng(0), 40_000, 1, 12, 0.01)
    found = np.bincount(slots[:, 0], minlength=12) / 40_000
    law = np.arange(1, 13) ** -0.99
    np.testing.assert_allclose(found, law / law.sum(), atol=0.012)


def test_a_mixture_has_as_many_sequences_of_each_number_of_pairs():
    task = tasks.get("mixed_recall", "laptop")
    _, labels = task.batch(0, 0, 400)
    pairs, found = np.unique((labels != ASKED).sum(1), return_counts=True)
    assert pairs.tolist() == [4, 8, 16, 32] == list(task.counts) and found.min() > 60
    with pytest.raises(ValueError, match="least must be in 1..kv"):
        tasks.get("mixed_recall", least=9)


def test_forgetting_asks_for_the_last_value():
    task = tasks.get("forgetting")
    ids, labels = task.batch(0, 0, 50)
    for row, below in zip(ids.tolist(), labels.tolist()):
        told = dict(zip(row[0:12:2], row[1:12:2]))  # a later pair replaces an earlier one
        assert {row[t]: below[t] for t in range(32) if below[t] != ASKED} == told and len(told) == 4
    parts = task.slices(ids, labels)
    assert parts["updated"].sum() == parts["kept"].sum() == 100


def test_half_a_compositional_key_leaves_a_row_of_the_grid_open():
    task = tasks.get("compositional")
    ids, labels = task.batch(0, 0, 50)
    for row, below in zip(ids.tolist(), labels.tolist()):
        told = {tuple(row[k : k + 2]): row[k + 2] for k in range(0, 12, 3)}
        assert len(told) == 4 and len({a for a, _ in told}) == len({b for _, b in told}) == 2
        assert {tuple(row[t - 1 : t + 1]): below[t] for t in range(32) if below[t] != ASKED} == told


def test_noise_takes_its_share_of_the_pairs():
    ids, _ = tasks.get("noisy_recall", "paper").batch(0, 0, 200)
    assert abs((ids[:, :-2] >= 16).float().mean() - 0.2) < 0.02


def test_memorization_asks_the_same_facts_in_both_streams():
    task = tasks.get("memorization")
    known = {}
    for stream in (task, task.unseen()):
        ids, labels = stream.batch(0, 0, 100)
        for key, value in zip(ids[:, 0::2].flatten().tolist(), labels[:, 1::2].flatten().tolist()):
            assert known.setdefault(key, value) == value
    assert len(known) == task.keys
    assert tasks.get("memorization", facts_seed=1).batch(0, 0, 4).labels.ne(task.batch(0, 0, 4).labels).any()


def test_copying_longer_asks_only_for_strings_that_training_never_had():
    task = tasks.get("copying").longer(4)
    sizes = (task.batch(0, 0, 100).ids == task.symbols).int().argmax(1)
    assert sizes.min() > 12 and sizes.max() <= 48


@pytest.mark.parametrize("group, order", [("Z2", 2), ("Z60", 60), ("S3", 6), ("S5", 120), ("A5", 60)])
def test_the_products_of_a_group_keep_its_axioms(group, order):
    table = products(group)
    assert elements(group).shape[0] == order == len(table)
    assert all(sorted(row) == list(range(order)) for row in [*table.tolist(), *table.T.tolist()])  # each solves x g = h
    a, b, c = np.random.default_rng(0).integers(order, size=(3, 200))
    np.testing.assert_array_equal(table[table[a, b], c], table[a, table[b, c]])
    assert any((table[k] == np.arange(order)).all() for k in range(order))
    assert (table == table.T).all() == (group[0] == "Z")


def test_brackets_are_asked_only_where_they_were_opened_long_ago():
    task = tasks.get("dyck", "laptop")
    ids, labels = task.batch(0, 0, 50)
    for row, below in zip(ids.tolist(), labels.tolist()):
        open_ = []
        for t, token in enumerate(row):
            if token < task.kinds:
                open_.append((token, t))
            else:
                assert open_.pop()[0] == token - task.kinds
            assert len(open_) <= task.depth
            far = bool(open_) and token >= task.kinds and t - open_[-1][1] >= task.reach
            assert below[t] == (task.kinds + open_[-1][0] if far else ASKED)


def test_a_name_is_first_once_and_repeated_from_then_on():
    row = np.array([START, *b"def count(count): return total + count"])
    kinds = name_kinds(row)
    shown = "".join("_12"[kind] if token != START else "" for token, kind in zip(row, kinds))
    assert shown == "_____1111__2222" + 11 * "_" + "1111____2222"
    assert set(name_kinds(np.array([START, *b"a name" + 64 * b" " + b"name name"]))[-9:-5]) == {0, 3}, "from afar"
    assert set(name_kinds(np.array([START, *b"a name" + 60 * b" " + b"name name"]))[-9:-5]) == {0, 2}


def test_the_slices_of_text_part_every_question():
    task = tasks.get("text", length=256)
    ids, labels = task.batch(0, 0, 20)
    parts = task.slices(ids, labels)
    far = parts.pop("far")
    assert far.any() and (far <= parts["repeated"]).all() and (far < parts["repeated"]).any()
    assert sum(part.int() for part in parts.values()).eq((labels != ASKED).int()).all()
    assert all(part.any() for part in parts.values())
    assert (labels[:, :-1] == ids[:, 1:]).all()


def test_losses_are_means_over_their_slice():
    logits, labels = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0)), torch.full((3, 5), ASKED)
    labels[0, 1], labels[2, 4] = 3, 6
    here = torch.zeros(3, 5, dtype=torch.bool)
    here[0, 1] = True
    found = tasks.losses(logits, labels, {"here": here, "nowhere": here & False})
    assert found == {"here": pytest.approx(-logits[0, 1].log_softmax(-1)[3].item())}


def test_accuracy_counts_asked_positions_only():
    labels = torch.tensor([[ASKED, 2, 1], [0, ASKED, 2]])
    found = tasks.accuracy(torch.tensor([[0, 2, 0], [0, 0, 2]]), labels)
    assert (found.total, found.whole) == (0.75, 0.5)
    assert found.per_sequence.tolist() == [0.5, 1]


def test_the_follower_is_what_stood_after_the_last_time():
    ids = np.array([[5, 1, 5, 2, 5, 1]])
    assert follower(ids).tolist() == [[0, 0, 1, 0, 2, 5]]
    assert follower(ids, width=2).tolist() == [[0, 0, 0, 0, 0, 5]]


def test_distinct_numbers_are_distinct_and_uniform():
    drawn = distinct(np.random.default_rng(0), 20_000, 3, range(5, 12))
    assert all(len(set(row)) == 3 for row in drawn[:1000].tolist())
    for k in range(3):
        np.testing.assert_allclose(np.bincount(drawn[:, k] - 5, minlength=7) / 20_000, 1 / 7, atol=0.012)
