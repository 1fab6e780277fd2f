"""The past is kept by keeping it: what is rewound, forked and transplanted goes on as the original did, bitwise."""

from dataclasses import replace

import pytest
import torch
from shipped import nano, nano_ids
from variants import BASE, VARIANTS, make_model, random_ids

from zamba_lab import lens
from zamba_lab.cache import LayerCache

CASES = {name: (make_model(config), random_ids(config), random_ids(config, seed=7)) for name, config in VARIANTS.items()}
CASES["nano"] = (nano(), nano_ids(2, 19), nano_ids(2, 24)[:, 5:])
each_case = pytest.mark.parametrize("model, ids, other", CASES.values(), ids=CASES.keys())


@each_case
@torch.no_grad()
def test_a_rewound_text_goes_on_as_it_did_bitwise(model, ids, other):
    start = lens.Timeline.start(model, ids[:, :8])
    logits, then = start.extend(ids[:, 8:11])
    _, later = then.extend(ids[:, 11:])
    again, _ = later.rewind(8).extend(ids[:, 8:11])
    assert torch.equal(again, logits)
    assert later.rewind(11).cache is then.cache and later.ids.shape == (2, 19) and start.ids.shape == (2, 8)
    between = later.rewind(10)  # not kept: read again from 8
    assert between.cache.length == 10 and torch.equal(between.ids, ids[:, :10])
    torch.testing.assert_close(between.extend(ids[:, 10:])[0], model(ids)[:, 10:], rtol=0, atol=1e-9)
    for position in (1, 3):
        rest, _ = later.rewind(position).extend(ids[:, position:])
        torch.testing.assert_close(rest, model(ids)[:, position:], rtol=0, atol=1e-9)


@each_case
@torch.no_grad()
def test_a_forks_rows_each_go_on_as_the_original_would(model, ids, other):
    _, cache = model.extend(ids[:, :8])
    logits, _ = model.extend(torch.cat([ids[:1, 8:], other[:1, 8:], ids[1:, 8:], other[1:, 8:]]), lens.fork(cache, 2))
    mine, theirs = model.extend(ids[:, 8:], cache)[0], model.extend(other[:, 8:], cache)[0]
    assert torch.equal(model.extend(ids[:, 8:], lens.fork(cache, 1))[0], mine)
    expected = torch.stack([mine[0], theirs[0], mine[1], theirs[1]])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-9)


@each_case
@torch.no_grad()
def test_transplanting_all_parts_continues_the_donors_text_bitwise(model, ids, other):
    cache, donor = model.extend(ids[:, :8])[1], model.extend(other[:, :8])[1]
    before, kept = cache.clone(), donor.clone()
    moved = lens.transplant(cache, donor)
    for piece in (ids[:, 8:], ids[:, 8:9]):
        assert torch.equal(model.extend(piece, moved)[0], model.extend(piece, donor)[0])
        assert not torch.equal(model.extend(piece, moved)[0], model.extend(piece, cache)[0])
    for old, now in ((before, cache), (kept, donor)):
        assert all(torch.equal(a, b.tensors()[name]) for x, b in zip(old.layers, now.layers) for name, a in x.tensors().items())


@each_case
@torch.no_grad()
def test_parts_transplanted_one_after_the_other_are_all_and_ones_own_changes_nothing(model, ids, other):
    cache, donor = model.extend(ids[:, :8])[1], model.extend(other[:, :8])[1]
    there = {"kv" if name in "kv" else name for layer in cache.layers for name in layer.tensors()}
    moved, own = cache, cache
    for part in there:
        for depth, layer in enumerate(cache.layers):
            if ("k" if part == "kv" else part) in layer.tensors():
                moved, own = lens.transplant(moved, donor, (part,), (depth,)), lens.transplant(own, cache, (part,), (depth,))
    assert torch.equal(model.extend(ids[:, 8:], moved)[0], model.extend(ids[:, 8:], donor)[0])
    assert torch.equal(model.extend(ids[:, 8:], own)[0], model.extend(ids[:, 8:], cache)[0])


@torch.no_grad()
def test_all_keys_and_values_bring_their_length_and_padding_with_them():
    model, ids, other = CASES["base"]
    mask = torch.ones(2, 11, dtype=torch.bool)
    mask[0, :3] = False
    cache, donor = model.extend(ids[:, :8])[1], model.extend(other[:, :11], mask=mask)[1]
    moved = lens.transplant(cache, donor)
    assert moved.length == 11 and torch.equal(moved.mask, mask)
    assert torch.equal(model.extend(ids[:, 8:], moved)[0], model.extend(ids[:, 8:], donor)[0])
    assert lens.transplant(cache, donor, ("kv",), model.config.hybrid_layers).length == 11
    states = lens.transplant(cache, donor, ("ssm", "conv"))
    assert states.length == 8 and states.mask is None


@torch.no_grad()
def test_keys_of_one_layer_go_between_texts_of_the_same_padding_only():
    model, ids, other = CASES["base"]
    left, right = torch.ones(2, 2, 8, dtype=torch.bool)
    left[0, :3] = right[0, 5:] = False
    plain, padded = (model.extend(ids[:, :8], mask=mask)[1] for mask in (None, left))
    moved = lens.transplant(padded, model.extend(other[:, :8], mask=left.clone())[1], ("kv",), (1,))
    assert moved.length == 8 and torch.equal(moved.mask, left)
    for cache, mask in ((padded, right), (padded, None), (plain, left)):
        with pytest.raises(ValueError, match="got 8 here and 8 in the donor, with other padding"):
            lens.transplant(cache, model.extend(other[:, :8], mask=mask)[1], ("kv",), (1,))


@torch.no_grad()
def test_states_alone_bring_no_length_with_them():
    model, ids, other = CASES["pure mamba2"]
    moved = lens.transplant(model.extend(ids[:, :8])[1], model.extend(other[:, :11])[1])
    assert moved.length == 8


@torch.no_grad()
def test_a_transplant_during_decoding_leaves_both_texts_to_go_on():
    """Keys and values lie in rooms that are written on in place: neither text may write into the other's."""
    model, ids, other = CASES["nano"]
    cache, donor = (model.extend(text[:, 8:9], model.extend(text[:, :8])[1])[1] for text in (ids, other))
    moved = lens.transplant(cache, donor, ("kv",))
    steps = {"moved": moved, "donor": donor, "own": cache}
    expected = {name: model.extend(ids[:, 9:10], one.clone())[0] for name, one in steps.items()}
    for name, one in steps.items():
        assert torch.equal(model.extend(ids[:, 9:10], one)[0], expected[name]), name


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(d_state=5), r"layer 0's conv cannot be transplanted: here \(2, 3, 56\).*the donor's \(2, 3, 52\)"),
        (dict(d_conv=3), r"layer 0's conv cannot be transplanted"),
        (dict(attn_kv_heads=2), r"layer 1's k cannot be transplanted: here \(2, 4, 8, 8\).*the donor's \(2, 2, 8, 8\)"),
        (dict(hybrid_layers=(1, 2, 3)), r"layer 3's k cannot be transplanted: here none, the donor's"),
        (dict(n_layers=6), "caches of 5 and 6 layers"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(change, message):
    model, ids = make_model(BASE), random_ids(BASE)
    other = make_model(replace(BASE, **change))
    cache, donor = (m.extend(ids[:, :8])[1] for m in (model, other))
    with pytest.raises(ValueError, match=message):
        lens.transplant(cache, donor)


def test_other_batches_types_lengths_names_and_absent_parts_are_refused():
    model, ids = make_model(BASE), random_ids(BASE)
    cache = model.extend(ids[:, :8])[1]
    longer, single = model.extend(ids[:, :9])[1], model.extend(ids[:1, :8])[1]
    for donor, options, message in (
        (single, {}, r"here \(2, .*the donor's \(1, "),
        (cache.map(lambda t: t.float()), {}, r"float64 cpu, the donor's .*float32"),
        (longer, dict(parts=("kv",), depths=(1,)), "got 8 here and 9 in the donor"),
        (longer, dict(parts=("state",)), r"parts must be of conv, ssm, kv: got \('state',\)"),
        (longer, dict(parts=()), r"got \(\)"),
        (longer, dict(depths=(5,)), r"depths must be in 0..4"),
        (longer, dict(parts=("kv",), depths=(0,)), r"there is no kv at depths \(0,\)"),
    ):
        with pytest.raises(ValueError, match=message):
            lens.transplant(cache, donor, **options)
    for position in (0, 9):
        with pytest.raises(ValueError, match=rf"must be in 1..8, the tokens read: got {position}"):
            lens.Timeline.start(model, ids[:, :8]).rewind(position)
    with pytest.raises(ValueError, match="1 or more: got 0"):
        lens.fork(cache, 0)
    assert isinstance(cache.layers[0], LayerCache)
