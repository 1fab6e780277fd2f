"""The four parts of a score are the score, and each is what the attention would be of those halves alone."""

import copy
from dataclasses import replace

import pytest
import torch
from lens_cases import CONCAT, TRAINED, case

from zamba_lab import lens
from zamba_lab.lens.concat import centred


@pytest.mark.parametrize("name", [*CONCAT, TRAINED])
def test_the_parts_sum_to_the_scores_at_every_invocation(name):
    model, ids = case(name)
    trace = lens.run(model, ids, keep=["*.attn_scores"])
    for k in range(model.config.n_invocations):
        found = lens.score_parts(model, ids, k)
        scores = trace[f"invocation.{k}.attn_scores"].tril()
        torch.testing.assert_close(found.parts.sum((0, 1)), scores)
        torch.testing.assert_close(found.scores, scores)
        assert found.error < 1e-9 and found.depth == model.config.hybrid_layers[k]
        assert found.parts.triu(1).abs().max() == 0
        shares = found.shares.sum((0, 1))
        torch.testing.assert_close(shares, torch.ones_like(shares))


def test_the_error_says_how_far_the_parts_are_from_the_scores():
    found = lens.score_parts(*case("base"), 1)
    assert replace(found, scores=2 * found.scores).error == pytest.approx(0.5)


def blind_to(model, block: int, name: str, half: int) -> None:
    """Let a projection of a block, and its adapters, read nothing of one half of the block's input."""
    d = model.config.d_model
    columns = slice(half * d, (half + 1) * d)
    getattr(model.shared_blocks[block].attention, name).weight[:, columns] = 0
    for k, owner in enumerate(model.config.blocks_by_invocation):
        adapters = model.layers[model.config.hybrid_layers[k]].invocation.adapters
        if owner == block and name in adapters:
            adapters[name].down.weight[:, columns] = 0


@pytest.mark.parametrize("name", [*CONCAT, TRAINED])
@pytest.mark.parametrize("query, key", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_each_part_is_the_score_of_a_model_that_hears_those_halves_only(name, query, key):
    model, ids = case(name)
    halves = copy.deepcopy(model)
    with torch.no_grad():
        blind_to(halves, 0, "q", 1 - query)
        blind_to(halves, 0, "k", 1 - key)
    expected = lens.run(halves, ids, keep=["invocation.0.attn_scores"])["invocation.0.attn_scores"].tril()
    torch.testing.assert_close(lens.score_parts(model, ids, 0).parts[query, key], expected)


@pytest.mark.parametrize("name", ["base", "no rope", TRAINED])
def test_a_half_the_norm_silences_has_no_share(name):
    model, ids = case(name)
    model, d = copy.deepcopy(model), model.config.d_model
    with torch.no_grad():
        for block in model.shared_blocks:
            block.norm_in.weight[d:] = 0
    found = lens.concat_shares(model, ids)
    assert found.input.abs().max() == 0
    torch.testing.assert_close(found.scores[0, 0], torch.ones_like(found.scores[0, 0]))
    assert found.scores[1].abs().max() == 0 and found.scores[0, 1].abs().max() == 0


@pytest.mark.parametrize("name", [*CONCAT, TRAINED])
def test_shares_by_depth_are_those_of_each_invocation(name):
    model, ids = case(name)
    c, found = model.config, lens.concat_shares(model, ids)
    assert found.depths == c.hybrid_layers
    assert found.input.shape == (c.n_invocations, *ids.shape)
    assert found.scores.shape == (2, 2, c.n_invocations, len(ids), c.attn_heads)
    trace = lens.run(model, ids, keep=["*.shared.input"])
    for k, block in enumerate(c.blocks_by_invocation):
        torch.testing.assert_close(found.scores[:, :, k], lens.score_parts(model, ids, k).shares)
        squares = model.shared_blocks[block].norm_in(trace[f"invocation.{k}.input"]).detach().square()
        torch.testing.assert_close(found.input[k], squares[..., c.d_model :].sum(-1) / squares.sum(-1))


def test_a_part_that_is_the_same_for_every_key_moves_nothing():
    table = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).tril()
    seen = torch.ones(5, 5, dtype=torch.bool).tril()
    moved = (table + torch.arange(5.0, dtype=torch.float64)[:, None]).tril()
    torch.testing.assert_close(centred(moved, seen), centred(table, seen))
    torch.testing.assert_close(centred(table, seen).sum(-1), torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(centred(table, seen)[2, :3], table[2, :3] - table[2, :3].mean())
    torch.testing.assert_close(centred(table, seen).softmax(-1)[4], table.softmax(-1)[4])


@pytest.mark.parametrize("name, message", [("no concat", "concat_embedding=True"), ("pure mamba1", "no shared block")])
def test_a_config_without_concatenation_is_refused(name, message):
    for call in (lens.concat_shares, lambda model, ids: lens.score_parts(model, ids, 0)):
        with pytest.raises(ValueError, match=message):
            call(*case(name))


def test_a_text_of_one_token_is_refused_where_shares_of_a_choice_are_asked_for():
    model, ids = case("base")
    with pytest.raises(ValueError, match=r"length >= 2\), got \(2, 1\)"):
        lens.concat_shares(model, ids[:, :1])
    assert lens.concat_shares(model, ids[:, :2]).scores.isfinite().all()


def test_an_invocation_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="invocation must be in 0..2: got 3"):
        lens.score_parts(*case("base"), 3)
