"""A memory that a model does not have cannot be missed; one that it has is missed as much as wiping it says."""

from dataclasses import replace

import pytest
import torch
from shipped import nano, nano_ids
from variants import BASE, VARIANTS, make_model, random_ids

from zamba_lab import lens

FILLER = torch.arange(29).repeat(7)


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_where_a_layer_has_no_such_memory_nothing_is_lost_and_elsewhere_something_is(config):
    found = lens.who_remembers(make_model(config), FILLER, distances=(3, 5), count=4, lead=6)
    assert found.loss.shape == (2, 3, 5, 4) and found.parts == ("ssm", "conv", "kv")
    mixers = range(5) if config.mixer != "attention" else ()
    holders = range(5) if config.mixer == "attention" else config.hybrid_layers
    windows = mixers if config.d_conv > 1 else ()  # one tap remembers nothing
    for row, depths in enumerate((mixers, windows, holders)):
        for i in range(5):
            assert bool((found.loss[:, row, i] != 0).any()) == (i in depths), (found.parts[row], i)
    low, high = found.interval()
    assert low.shape == (2, 3, 5) and (low <= high).all()


@torch.no_grad()
def test_the_loss_is_that_of_the_intervention_on_the_prompt_read_at_once():
    model = nano()
    filler = nano_ids(1, 90)[0]
    found = lens.who_remembers(model, filler, distances=(7,), count=5, lead=9)
    ids, other = lens.needles(filler, 7, 5, 9)
    asked = ids.shape[1] - 2
    for row, (part, i, depth) in enumerate((("ssm", 2, 2), ("conv", 5, 5), ("kv", 1, 3))):
        changed = lens.token_losses(lens.intervene(model, lens.wipe(part, i, asked))(ids), ids)[:, -1]
        torch.testing.assert_close(found.wiped[0, row, depth], changed)
    torch.testing.assert_close(found.baseline[0], lens.next_token_loss(model, ids)[:, -1])
    torch.testing.assert_close(found.never[0], lens.next_token_loss(model, other)[:, -1])
    torch.testing.assert_close(
        found.never_wiped[0, 0, 2], lens.token_losses(lens.intervene(model, lens.wipe("ssm", 2, asked))(other), other)[:, -1]
    )
    assert torch.equal(found.loss[0, 0, 2], (found.never - found.baseline)[0] - (found.never_wiped - found.wiped)[0, 0, 2])
    assert torch.equal(ids[:, -1], other[:, -1])


def test_a_needle_is_told_once_at_its_distance_and_asked_for_at_the_end():
    ids, other = lens.needles(FILLER, distance=5, count=9, lead=4, seed=3)
    assert ids.shape == other.shape == (9, 4 + 2 + 5 + 2)
    assert torch.equal(ids[:, 4:6], ids[:, -2:]) and (ids[:, 4] != ids[:, 5]).all()
    differs = ids != other
    assert differs[:, 5].all() and differs.sum() == 9
    assert torch.equal(ids, lens.needles(FILLER, 5, 9, 4, seed=3)[0])
    assert not torch.equal(ids, lens.needles(FILLER, 5, 9, 4, seed=4)[0])
    assert lens.needles(FILLER, 5, 1, lead=0)[0].shape == (1, 9)  # no text before it, and
    assert lens.needles(FILLER[:9], 5, 1, lead=4)[0].shape == (1, 13)  # just enough filler
    assert lens.needles(torch.arange(3).repeat(2), 1, 1, lead=0)[0].shape == (1, 5)  # three kinds are enough
    starts = torch.cat([ids[:, :4], ids[:, 6:11]], dim=1)  # the filler goes on behind the needle
    assert ((starts[:, 1:] - starts[:, :-1]) % 29 == 1).all()


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(distance=0), "got 0, 1 and 4"),
        (dict(count=0), "got 5, 0 and 4"),
        (dict(lead=-1), "got 5, 1 and -1"),
        (dict(distance=300), r"n >= lead \+ distance = 304"),
        (dict(filler=torch.ones(90, dtype=torch.long)), "1 kinds"),
    ],
)
def test_a_needle_without_room_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        lens.needles(**{**dict(filler=FILLER, distance=5, count=1, lead=4), **options})


def test_the_distances_are_four_sixteen_and_sixty_four_tokens_if_none_are_named():
    found = lens.who_remembers(make_model(BASE), FILLER, count=2)
    assert found.distances == (4, 16, 64) and found.loss.shape == (3, 3, 5, 2)


def test_no_distance_is_refused():
    with pytest.raises(ValueError, match="one distance or more"):
        lens.who_remembers(make_model(replace(BASE, n_layers=5)), FILLER, distances=())


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_a_transplanted_memory_moves_what_is_said_where_there_is_one_and_ones_own_does_not(config):
    model, ids, other = make_model(config), random_ids(config), random_ids(config, seed=7)
    found = lens.who_carries(model, ids, other)
    holders = range(5) if config.mixer == "attention" else config.hybrid_layers
    mixers = range(5) if config.mixer != "attention" else ()
    for row, depths in enumerate((mixers, mixers if config.d_conv > 1 else (), holders)):
        for i in range(5):
            assert bool((found[row, i] > 0).all()) == (i in depths) and (i in depths or (found[row, i] == 0).all())
    assert lens.who_carries(model, ids, ids).abs().max() < 1e-12
    assert lens.who_carries(model, ids[:, :2], other[:, :2]).shape == (3, 5, 2)
    with pytest.raises(ValueError, match=r"got \(2, 1\) and \(2, 1\)"):
        lens.who_carries(model, ids[:, :1], other[:, :1])
    with pytest.raises(ValueError, match=r"got \(2, 19\) and \(2, 18\)"):
        lens.who_carries(model, ids, other[:, 1:])
