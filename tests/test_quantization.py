"""What rounding a model's matrices to int8 costs, and what it leaves as it was."""

from copy import deepcopy

import pytest
import torch
from variants import VARIANTS, make_model, random_ids

import zamba_lab as zl
from zamba_lab.blocks.linear import Embedding, Linear
from zamba_lab.ops.linear import dequantised, quantised


def distance(one, other):
    return ((one.double() - other.double()).square().mean() / other.double().square().mean()).sqrt().item()


@torch.no_grad()
def test_nano_keeps_its_logits_to_three_percent_and_its_choice_of_token():
    ids = torch.randint(5, 2048, (1, 64), generator=torch.Generator().manual_seed(0))
    full, small = zl.load("zamba2-nano"), zl.quantize(zl.load("zamba2-nano"))
    before = full(ids)
    assert distance(small(ids), before) < 0.03
    assert distance(zl.quantize(zl.load("zamba2-nano"), embeddings=False)(ids), before) < 0.03
    assert (small(ids).argmax(-1) == before.argmax(-1)).float().mean() > 0.9
    assert sum(t.nbytes for t in small.state_dict().values()) < 0.3 * sum(t.nbytes for t in full.state_dict().values())


@pytest.mark.parametrize("variant", ["base", "mamba1", "lora on qkv", "untied", "biases", "transformer"])
@torch.no_grad()
def test_it_computes_what_the_rounded_weights_compute_in_every_form_of_a_pass(variant):
    config = VARIANTS[variant]
    rounded, ids = make_model(config).float(), random_ids(config)
    small = zl.quantize(deepcopy(rounded))
    for module in rounded.modules():
        if isinstance(module, Linear | Embedding):
            module.weight.copy_(dequantised(*quantised(module.weight), torch.float32))
    want = rounded(ids)
    logits, cache = small.extend(ids[:, :11])
    stepped, _ = small.extend(ids[:, 11:12], cache)
    for got, part in ((small(ids), want), (logits, want[:, :11]), (stepped, want[:, 11:12])):
        torch.testing.assert_close(got, part, rtol=0, atol=1e-4)
    assert zl.generate(small, ids, 3).shape == (2, 3)


@torch.no_grad()
def test_moving_it_to_another_type_changes_no_weight():
    model, ids = zl.quantize(make_model(VARIANTS["base"]).float()), random_ids(VARIANTS["base"])
    before = {name: t.clone() for name, t in model.state_dict().items() if "values" in name or "scale" in name}
    assert model.to(torch.bfloat16)(ids).dtype == torch.bfloat16
    assert all(torch.equal(t, model.state_dict()[name]) for name, t in before.items())


def test_it_is_not_saved_and_nothing_else_is_known(tmp_path):
    with pytest.raises(ValueError, match="kind must be 'int8': got 'int4'"):
        zl.quantize(make_model(VARIANTS["base"]), "int4")
    with pytest.raises(ValueError, match="an int8 model is not saved"):
        zl.save(zl.quantize(make_model(VARIANTS["base"])), tmp_path / "model")
    assert not (tmp_path / "model").exists()
