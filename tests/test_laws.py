"""The laws that every variant keeps, over the whole grid of toggles."""

from dataclasses import replace

import pytest
import torch
from variants import VARIANTS, make_model, random_ids

import zamba_lab as zl

every_variant = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())


@every_variant
@torch.no_grad()
def test_a_later_token_changes_no_earlier_logit_and_does_change_its_own(config):
    model, ids = make_model(config), random_ids(config)
    changed = ids.clone()
    changed[:, 11] = (ids[:, 11] + 1) % config.vocab_size
    difference = (model(changed) - model(ids)).abs().amax((0, 2))
    assert difference[:11].max() == 0
    assert difference[11] > 1e-6
    assert difference[12:].max() > 1e-9, "nothing carries over from token to token"


@every_variant
@pytest.mark.parametrize("sizes", [(1,) * 19, (2, 8, 1, 7, 1)], ids=["step by step", "in pieces"])
@torch.no_grad()
def test_what_is_read_in_pieces_equals_all_at_once(config, sizes):
    model, ids = make_model(config), random_ids(config)
    cache, pieces = None, []
    for piece in ids.split(sizes, dim=1):
        logits, cache = model.extend(piece, cache)
        pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, 1), model(ids), rtol=0, atol=1e-11)


@every_variant
@torch.no_grad()
def test_batch_rows_do_not_mix(config):
    model, ids = make_model(config), random_ids(config, b=3)
    torch.testing.assert_close(model(ids)[1:2], model(ids[1:2]), rtol=0, atol=1e-11)


@every_variant
@pytest.mark.parametrize("where", ["left", "right", "inside"])
@torch.no_grad()
def test_padding_changes_nothing_in_prefill_nor_in_what_follows(config, where):
    model, ids, after = make_model(config), random_ids(config, b=3), random_ids(config, b=3, l=4, seed=2)
    lengths = torch.tensor([19, 11, 1])
    place = torch.arange(19)[None]
    mask = {
        "left": place >= 19 - lengths[:, None],
        "right": place < lengths[:, None],
        "inside": torch.rand(3, 19, generator=torch.Generator().manual_seed(3)) < 0.5,
    }[where]
    logits, cache = model.extend(ids, mask=mask)
    last, _ = model.extend(ids, mask=mask, last_only=True)
    more, cache = model.extend(after[:, :3], cache)
    more = torch.cat([more, model.extend(after[:, 3:], cache)[0]], dim=1)
    for row in range(3):
        real = ids[row][mask[row]]
        alone = model(torch.cat([real, after[row]])[None])[0]
        torch.testing.assert_close(logits[row][mask[row]], alone[: len(real)], rtol=0, atol=1e-11)
        torch.testing.assert_close(last[row, 0], alone[len(real) - 1], rtol=0, atol=1e-11)
        torch.testing.assert_close(more[row], alone[len(real) :], rtol=0, atol=1e-11)


@every_variant
@torch.no_grad()
def test_chunk_size_changes_nothing(config):
    model, ids = make_model(config), random_ids(config)
    other = make_model(replace(config, chunk_size=64))
    torch.testing.assert_close(other(ids), model(ids), rtol=0, atol=1e-11)


@every_variant
@torch.no_grad()
def test_traced_equals_untraced_in_forward_and_in_extend(config):
    model, ids = make_model(config), random_ids(config)
    trace = zl.Trace(keep=["*"], edit={"*": lambda value: value})
    torch.testing.assert_close(model(ids, trace=trace), model(ids), rtol=0, atol=1e-11)
    _, cache = model.extend(ids[:, :7], trace=trace)
    torch.testing.assert_close(model.extend(ids[:, 7:], cache, trace=trace)[0], model(ids)[:, 7:], rtol=0, atol=1e-11)


@every_variant
def test_every_parameter_gets_a_gradient(config):
    model = make_model(config)
    model(random_ids(config)).logsumexp(-1).sum().backward()
    idle = [name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    # the dt clamp stops the gradient of step sizes below it, but not of every head in every layer
    assert not idle


@every_variant
@torch.no_grad()
def test_predicted_parameters_and_cache_bytes_equal_the_built(config):
    model, ids = make_model(config), random_ids(config)
    assert sum(p.numel() for p in model.parameters()) == config.n_params
    for m, dtype in ((model, torch.float64), (zl.Zamba(config).to(torch.bfloat16), torch.bfloat16)):
        assert m.extend(ids)[1].nbytes == config.cache_bytes(19, batch=2, dtype=dtype)


@every_variant
@torch.no_grad()
def test_extending_leaves_the_old_cache_as_it_was(config):
    model, ids = make_model(config), random_ids(config)
    _, cache = model.extend(ids[:, :9])
    before = cache.clone()
    first, _ = model.extend(ids[:, 9:12], cache)
    again, _ = model.extend(ids[:, 9:12], cache)
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    for old, kept in zip(before.layers, cache.layers):
        assert old.tensors().keys() == kept.tensors().keys()
        assert all(torch.equal(t, kept.tensors()[name]) for name, t in old.tensors().items())


def test_a_toggle_that_is_off_leaves_no_parameters_behind():
    def names(variant):
        return {part for name, _ in make_model(VARIANTS[variant]).named_parameters() for part in name.split(".")}

    assert {"adapters", "link", "shared_blocks"} <= names("base")
    assert "adapters" not in names("no lora")
    assert not {"adapters", "link", "shared_blocks", "invocation"} & names("pure mamba2")
    assert "conv_bias" in names("base") and "conv_bias" not in names("no conv bias")
    assert "head" in names("untied") and "head" not in names("base")


def test_shared_weights_are_stored_once_and_used_at_every_invocation():
    model = make_model(VARIANTS["one block"])
    blocks = [block for block in model.blocks_by_depth() if block is not None]
    assert len(blocks) == 3 and len({id(block) for block in blocks}) == 1
    assert len(list(model.state_dict())) == len(set(model.state_dict())) == len(list(model.parameters()))


@torch.no_grad()
def test_computing_in_bfloat16_costs_no_more_than_rounding_the_weights_to_it():
    for config in (VARIANTS["base"], VARIANTS["mamba1"], VARIANTS["transformer"]):
        model, ids = make_model(config).float(), random_ids(config)
        exact = model(ids)
        rough = model.to(torch.bfloat16)(ids)
        rounded = model.float()(ids)
        assert rough.dtype == torch.bfloat16
        assert (rough - rounded).std() < 3 * (rounded - exact).std()
