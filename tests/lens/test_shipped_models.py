"""The identities of the lens on every trained model of the project: hybrids of both mixers, and one kind of layer alone."""

import copy
from functools import cache

import pytest
import torch
from shipped import nano_ids

import zamba_lab as zl
from zamba_lab import lens
from zamba_lab.config.presets import SHIPPED

IDS, OTHER = nano_ids(2, 19), nano_ids(2, 24)[:, 5:]
WITH_STATES = [name for name in SHIPPED if not name.startswith("transformer")]
HYBRIDS = [name for name in WITH_STATES if name.startswith("zamba")]


@cache
def shipped(name: str) -> zl.Zamba:
    """A float64 model. Read it; do not write into it."""
    return zl.load(name, dtype=torch.float64)


def test_there_is_a_hybrid_of_either_mixer_and_a_model_of_one_kind_of_layer_each():
    kinds = {(shipped(name).config.mixer, bool(shipped(name).config.n_invocations)) for name in SHIPPED}
    assert {("mamba1", True), ("mamba2", True), ("mamba2", False), ("attention", False)} <= kinds


@pytest.mark.parametrize("name", WITH_STATES)
def test_matrices_rebuild_the_mixers_and_contents_the_states(name):
    model = shipped(name)
    for depth in (0, 1, model.config.n_layers - 1):
        matrix = lens.mixer_matrix(model, IDS, depth)
        assert matrix.error < 1e-9 and lens.contents(model, IDS, depth).error < 1e-9
        torch.testing.assert_close(matrix.shares().sum((1, 3)) + matrix.constant_share(), torch.ones(2, 19).double())
    spread = lens.rollout(model, IDS)
    torch.testing.assert_close(spread.total.sum(-1), torch.ones(model.config.n_layers, 2, 19).double())


@pytest.mark.parametrize("name", WITH_STATES)
@pytest.mark.parametrize("direct", [False, True], ids=["total", "direct"])
def test_an_attribution_leaves_over_what_the_biases_add_and_without_them_nothing(name, direct):
    model = copy.deepcopy(shipped(name))
    assert lens.attribution(model, IDS, direct=direct).remainder.abs().max() > 1e-3
    for layer in model.layers:  # all that these models have in their mixers
        layer.mamba.conv_bias.data.zero_()
    assert lens.attribution(model, IDS, direct=direct).remainder.abs().max() < 1e-9


@pytest.mark.parametrize("name", SHIPPED)
def test_the_logit_lens_reads_at_the_end_what_the_model_says(name):
    found = lens.logit_lens(shipped(name), IDS)
    assert found.divergence[-1].abs().max() < 1e-11 and found.divergence[0].min() > 0
    torch.testing.assert_close(found.loss[-1], lens.next_token_loss(shipped(name), IDS))


@pytest.mark.parametrize("name", HYBRIDS)
def test_four_parts_are_the_scores_and_three_sums_of_squares_the_drift(name):
    model = shipped(name)
    assert all(lens.score_parts(model, IDS, k).error < 1e-9 for k in range(model.config.n_invocations))
    for block in range(model.config.n_shared_blocks):
        found = lens.drift(model, IDS, block)
        torch.testing.assert_close(found.inputs + found.adapters + found.both, found.total)


@pytest.mark.parametrize("name", HYBRIDS)
@torch.no_grad()
def test_two_swaps_and_untying_are_the_identity_bitwise(name):
    model = shipped(name)
    swap = lens.swap_blocks(0, model.config.n_shared_blocks - 1)
    for nothing in ([swap, swap], [lens.untie()]):
        assert torch.equal(lens.intervene(model, *nothing)(IDS), model(IDS))


@pytest.mark.parametrize("name", SHIPPED)
@torch.no_grad()
def test_all_memory_transplanted_continues_the_donors_text_bitwise(name):
    model = shipped(name)
    cache, donor = (model.extend(text[:, :8])[1] for text in (IDS, OTHER))
    assert torch.equal(model.extend(IDS[:, 8:], lens.transplant(cache, donor))[0], model.extend(IDS[:, 8:], donor)[0])
    assert not torch.equal(model.extend(IDS[:, 8:], cache)[0], model.extend(IDS[:, 8:], donor)[0])


@pytest.mark.parametrize("name", SHIPPED)
def test_a_memory_that_is_not_there_is_not_missed_and_one_that_is_there_is(name):
    model = shipped(name)
    c = model.config
    found = lens.who_remembers(model, nano_ids(1, 60)[0], distances=(3,), count=3, lead=6)
    carried = lens.who_carries(model, IDS, OTHER)
    mixers = range(c.n_layers) if c.mixer != "attention" else ()
    holders = range(c.n_layers) if c.mixer == "attention" else c.hybrid_layers
    for row, depths in enumerate((mixers, mixers, holders)):
        for i in range(c.n_layers):
            missed = bool((found.loss[:, row, i] != 0).any()), bool((carried[row, i] != 0).any())
            assert missed == (i in depths, i in depths), (found.parts[row], i)
