"""A layer's stream is the sum of its parts, whichever way a token came; the depth is the product of its layers."""

import copy

import pytest
import torch
from lens_cases import HYBRID, LISTENING, TRAINED, case
from lens_frozen import frozen_layer

from zamba_lab import lens
from zamba_lab.lens.rollout import attention_shares, names_for_flow


def depths_of(model) -> list[int]:
    """A hybrid layer and a plain one, of those the model has."""
    c = model.config
    plain = [i for i in range(c.n_layers) if i not in c.hybrid_layers]
    return [*c.hybrid_layers[1:2], *plain[:1]]


@pytest.mark.parametrize("name", [*LISTENING, TRAINED])
def test_the_parts_of_a_stream_sum_to_it(name):
    model, ids = case(name)
    for depth in depths_of(model):
        flow = lens.layer_flow(model, ids, depth)
        one = torch.ones_like(flow.kept)
        torch.testing.assert_close(flow.kept + flow.mixed.sum((1, 3)) + flow.block.sum((1, 3)) + flow.constant, one)
        torch.testing.assert_close(flow.tokens.sum(-1) + flow.constant, one)
        torch.testing.assert_close(flow.attended.sum(-1), flow.block.sum((1, 3)))
        assert flow.tokens.triu(1).abs().max() == 0 and flow.depth == depth
        assert bool(flow.block.any()) == (depth in model.config.hybrid_layers)


@pytest.mark.parametrize("name", ["base", "mamba1", "biases", TRAINED])
def test_kept_and_mixed_are_the_projections_on_the_stream_after(name):
    model, ids = case(name)
    depth = model.config.hybrid_layers[1]
    flow = lens.layer_flow(model, ids, depth)
    trace = lens.run(model, ids, keep=["*.resid_in", "*.resid_out", "*.mamba.out"])
    before, after, out = (trace[f"layers.{depth}.{name}"] for name in ("resid_in", "resid_out", "mamba.out"))
    size = after.square().sum(-1)
    torch.testing.assert_close(flow.kept, (before * after).sum(-1) / size)
    torch.testing.assert_close(flow.mixed.sum((1, 3)) + flow.block.sum((1, 3)) + flow.constant, (out * after).sum(-1) / size)


@pytest.mark.parametrize("name", ["base", "mamba1", TRAINED])
def test_what_comes_by_the_block_goes_when_the_link_is_cut(name):
    model, ids = case(name)
    model = copy.deepcopy(model)
    depth = model.config.hybrid_layers[0]
    torch.nn.init.zeros_(model.layers[depth].invocation.link.weight)
    flow = lens.layer_flow(model, ids, depth)
    assert flow.block.abs().max() == 0 and flow.attended.abs().max() == 0 and flow.mixed.abs().max() > 0


@pytest.mark.parametrize("name", [name for name in HYBRID if name in LISTENING] + [TRAINED])
def test_attention_shares_sum_to_one_and_are_each_source_s_part(name):
    model, ids = case(name)
    depth = model.config.hybrid_layers[-1]
    trace = lens.run(model, ids, keep=dict.fromkeys(names_for_flow(model, depth)))
    shares = attention_shares(model, trace, depth)
    torch.testing.assert_close(shares.sum(-1), torch.ones_like(shares[..., 0]))
    assert shares.triu(1).abs().max() == 0
    probs, v, a = (trace[f"layers.{depth}.shared.{part}"] for part in ("attn_probs", "v", "attn_out"))
    v = v.repeat_interleave(model.config.attn_heads // model.config.kv_heads, dim=1)
    part = model.blocks_by_depth()[depth].attention.o((probs[:, :, 4, 2, None] * v[:, :, 2]).flatten(1)).detach()
    torch.testing.assert_close(shares[:, 4, 2], (part * a[:, 4]).sum(-1) / a[:, 4].square().sum(-1))


@pytest.mark.parametrize("name", [name for name in HYBRID if name in LISTENING] + [TRAINED])
def test_through_attention_is_the_gradient_at_frozen_steering_times_the_values(name):
    model, ids = case(name)
    depth, at = model.config.hybrid_layers[-1], 6
    found = lens.through_attention(model, ids, depth, at)
    v, forward = frozen_layer(model, ids, depth)
    v = v.clone().requires_grad_()
    out = forward(v)
    toward = (out / out.square().sum(-1, keepdim=True)).detach()
    (gradient,) = torch.autograd.grad((out * toward)[:, at].sum(), v)
    torch.testing.assert_close(found, (gradient * v).sum((1, 3)).detach())
    torch.testing.assert_close(found[:, at + 1 :], torch.zeros_like(found[:, at + 1 :]))


@pytest.mark.parametrize("name", [name for name in HYBRID if name in LISTENING and name != "biases"] + [TRAINED])
def test_through_attention_sums_to_what_the_mixer_took_from_the_block(name):
    model, ids = case(name)
    depth, at = model.config.hybrid_layers[-1], 8
    trace = lens.run(model, ids, keep=["*.resid_in", "*.link_out"])
    x, t = trace[f"layers.{depth}.resid_in"], trace[f"layers.{depth}.shared.link_out"]
    norm = model.layers[depth].norm
    part = (norm(x + t) * t / (x + t)).detach()
    expected = lens.mixer_matrix(model, ids, depth).shares(part=part)[:, :, at].sum((1, 2))
    torch.testing.assert_close(lens.through_attention(model, ids, depth, at).sum(-1), expected)


@pytest.mark.parametrize("name", [*LISTENING, TRAINED])
def test_a_rollout_is_the_product_of_its_layers_and_keeps_its_rows(name):
    model, ids = case(name)
    found = lens.rollout(model, ids)
    assert found.layers.shape == found.total.shape == (model.config.n_layers, len(ids), ids.shape[1], ids.shape[1])
    torch.testing.assert_close(found.total.sum(-1), torch.ones_like(found.total[..., 0]))
    assert found.total.triu(1).abs().max() == 0 and (found.total >= 0).all()
    product = found.layers[0]
    for table in found.layers[1:]:
        product = table @ product
    torch.testing.assert_close(found.total[-1], product)
    assert (found.cancellation >= 1 - 1e-9).all()
    for depth in depths_of(model):
        flow = lens.layer_flow(model, ids, depth)
        torch.testing.assert_close(found.layers[depth], flow.tokens.abs() / flow.tokens.abs().sum(-1, keepdim=True))
        torch.testing.assert_close(found.cancellation[depth], flow.tokens.abs().sum(-1) + flow.constant.abs())


def test_mixers_that_write_nothing_leave_every_token_where_it_was():
    model, ids = case("base")
    model = copy.deepcopy(model)
    for layer in model.layers:
        torch.nn.init.zeros_(layer.mamba.out_proj.weight)
    found = lens.rollout(model, ids)
    torch.testing.assert_close(found.total, torch.eye(ids.shape[1], dtype=torch.float64).expand_as(found.total))
    torch.testing.assert_close(found.cancellation, torch.ones_like(found.cancellation))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m, ids: lens.through_attention(m, ids, 0, 3), r"hybrid_layers \(1, 2, 4\): got 0"),
        (lambda m, ids: lens.through_attention(m, ids, 1, 11), "at must be in 0..10: got 11"),
        (lambda m, ids: lens.layer_flow(m, ids, 5), "depth must be in 0..4: got 5"),
    ],
)
def test_a_layer_or_token_that_is_not_there_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(*case("base"))
