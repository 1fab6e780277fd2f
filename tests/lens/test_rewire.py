"""A rewired model is another model over the same weights."""

from dataclasses import replace

import pytest
import torch
from shipped import nano, nano_ids
from variants import BASE, VARIANTS, make_model, random_ids

import zamba_lab as zl
from zamba_lab import lens
from zamba_lab.lens.parts import adapters

HYBRIDS = {name: config for name, config in VARIANTS.items() if config.n_invocations}
every_hybrid = pytest.mark.parametrize("config", HYBRIDS.values(), ids=HYBRIDS.keys())


def models():
    return [(make_model(BASE), random_ids(BASE)), (nano(), nano_ids(2))]


@every_hybrid
@torch.no_grad()
def test_swapping_twice_is_the_identity_bitwise_and_once_is_not(config):
    model, ids = make_model(config), random_ids(config)
    swap = lens.swap_blocks(0, config.n_shared_blocks - 1)
    assert torch.equal(lens.intervene(model, swap, swap)(ids), model(ids))
    assert torch.equal(lens.intervene(model, swap)(ids), model(ids)) == (config.n_shared_blocks == 1)


@every_hybrid
@torch.no_grad()
def test_untied_equals_tied_bitwise_until_a_copy_is_changed(config):
    model, ids = make_model(config), random_ids(config)
    untied = lens.intervene(model, lens.untie())
    assert torch.equal(untied(ids), model(ids))
    assert untied.config.n_shared_blocks == config.n_invocations == len(untied.shared_blocks)
    plain = model(ids)
    untied.shared_blocks[0].mlp.down.weight.zero_()
    assert not torch.allclose(untied(ids), plain) and torch.equal(model(ids), plain)


@torch.no_grad()
def test_the_shipped_model_keeps_the_laws_of_swapping_and_untying():
    model, ids = nano(), nano_ids(2)
    swap = lens.swap_blocks()
    assert torch.equal(lens.intervene(model, swap, swap)(ids), model(ids))
    assert torch.equal(lens.intervene(model, lens.untie())(ids), model(ids))
    assert not torch.allclose(lens.intervene(model, swap)(ids), model(ids))


@torch.no_grad()
def test_a_swap_of_abab_is_baba_and_one_block_is_a_model_with_one_block():
    model, ids = make_model(BASE), random_ids(BASE)
    swapped = lens.intervene(model, lens.swap_blocks())
    a, b = model.shared_blocks
    assert [block for block in swapped.blocks_by_depth() if block is not None] == [b, a, b]
    one = lens.intervene(model, lens.one_block(1))
    alone = zl.Zamba(one.config).double()
    names = {name: t for name, t in model.state_dict().items() if not name.startswith("shared_blocks.")}
    alone.load_state_dict(names | {f"shared_blocks.0.{name}": t for name, t in b.state_dict().items()})
    assert one.config == replace(BASE, n_shared_blocks=1) and torch.equal(one(ids), alone(ids))


@every_hybrid
@torch.no_grad()
def test_permuting_adapters_and_back_is_the_identity_and_only_the_adapters_move(config):
    if not adapters(config):
        pytest.skip("no adapters")
    model, ids, k = make_model(config), random_ids(config), config.n_invocations
    order = (*range(1, k), 0)
    back = [order.index(i) for i in range(k)]
    forth = lens.permute_adapters(order)
    assert torch.equal(lens.intervene(model, forth, lens.permute_adapters(back))(ids), model(ids))
    changed = lens.intervene(model, forth)
    assert not torch.allclose(changed(ids), model(ids))
    for place, owner in enumerate(order):
        mine, theirs, before = (m.layers[config.hybrid_layers[i]].invocation for m, i in ((changed, place), (model, owner), (model, place)))
        assert mine.adapters is theirs.adapters and mine.link is before.link


@every_hybrid
def test_a_view_shares_every_parameter_and_leaves_the_model_as_it_was(config):
    model = make_model(config)
    before = {name: id(p) for name, p in model.named_parameters()}
    wirings = [lens.swap_blocks(0, config.n_shared_blocks - 1), lens.one_block()]
    wirings += [lens.permute_adapters(range(config.n_invocations)[::-1])] * bool(adapters(config))
    for one in wirings:
        view = lens.intervene(model, one).view
        assert {id(p) for p in view.parameters()} <= set(before.values()) and view is not model
        assert sum(p.numel() for p in view.parameters()) == view.config.n_params
    assert {name: id(p) for name, p in model.named_parameters()} == before and model.config == config


@pytest.mark.parametrize("make", [lens.swap_blocks, lens.one_block, lens.untie, lambda: lens.permute_adapters((1, 0, 2))])
@torch.no_grad()
def test_a_rewired_model_can_be_saved(make, tmp_path):
    model, ids = make_model(BASE), random_ids(BASE)
    view = lens.intervene(model, make()).view
    zl.save(view, tmp_path)
    loaded = zl.load(tmp_path)
    for name, tensor in view.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    # Weights mapped from a file may lie elsewhere in a cache line: the same numbers, sums rounded otherwise in the last bit.
    torch.testing.assert_close(loaded(ids), view(ids), rtol=1e-12, atol=1e-12)
