"""Switching a part off by an edit equals taking its weights away."""

import copy
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from zamba_lab import lens
from zamba_lab.config import ZambaConfig
from zamba_lab.model import Zamba

CONFIG = ZambaConfig(vocab_size=50, d_model=16, n_layers=4, d_state=4, headdim=8, hybrid_layers=(0, 2, 3), attn_heads=4,
                     d_mlp=24, lora_rank=3, lora_rank_qkv=2)
PLACES = [0, 2, None]


def random_model() -> tuple[Zamba, torch.Tensor]:
    torch.manual_seed(0)
    return Zamba(CONFIG).double(), torch.randint(0, 50, (2, 9))


def invocations(model: Zamba, where: int | None) -> list:
    found = [model.layers[i].invocation for i in CONFIG.hybrid_layers]
    return found if where is None else [found[where]]


def test_the_loss_is_the_cross_entropy_of_the_next_token():
    model, ids = random_model()
    expected = F.cross_entropy(model(ids)[:, :-1].reshape(-1, 50), ids[:, 1:].reshape(-1))
    found = lens.next_token_loss(model, ids)
    assert found.shape == (2, 8)
    torch.testing.assert_close(found.mean(), expected.detach())


def test_one_token_has_no_next_token_loss():
    model, ids = random_model()
    with pytest.raises(ValueError, match=r"length >= 2\): got \(2, 1\)"):
        lens.next_token_loss(model, ids[:, :1])


@pytest.mark.parametrize("where", PLACES)
def test_an_invocation_off_equals_a_link_of_zeros(where):
    model, ids = random_model()
    without = copy.deepcopy(model)
    for invocation in invocations(without, where):
        torch.nn.init.zeros_(invocation.link.weight)
    effect = lens.switch_off(model, ids, "invocation", where)
    torch.testing.assert_close(effect.without, lens.next_token_loss(without, ids))
    assert (effect.change.abs() > 1e-9).any()


@pytest.mark.parametrize("where", PLACES)
def test_lora_off_equals_adapters_of_zeros(where):
    model, ids = random_model()
    without = copy.deepcopy(model)
    for invocation in invocations(without, where):
        for adapter in invocation.adapters.values():
            torch.nn.init.zeros_(adapter.up.weight)
    effect = lens.switch_off(model, ids, "LoRA", where)
    torch.testing.assert_close(effect.without, lens.next_token_loss(without, ids))
    assert (effect.change.abs() > 1e-9).any()


@pytest.mark.parametrize("where", PLACES)
def test_concat_off_hides_the_embeddings_from_the_block(where):
    model, ids = random_model()
    edits = lens.switch_edits(CONFIG, "concat", where)
    trace = lens.run(model, ids, keep=["invocation.*.input"], edit=edits)
    for k in range(CONFIG.n_invocations):
        stream, embedding = trace[f"invocation.{k}.input"].chunk(2, dim=-1)
        assert bool(embedding.any()) == (k != where and where is not None)
        assert stream.any()


def test_the_model_is_whole_again_afterwards():
    model, ids = random_model()
    before = lens.next_token_loss(model, ids)
    effects = lens.switch_off_each(model, ids)
    assert [(e.part, e.where) for e in effects] == [(part, k) for part in ("invocation", "LoRA", "concat")
                                                    for k in (0, 1, 2, None)]
    assert [effects[i].name for i in (0, 3, 4)] == ["invocation 0 off", "every invocation off", "LoRA off at invocation 0"]
    for effect in effects:
        torch.testing.assert_close(effect.whole, before)
    torch.testing.assert_close(lens.next_token_loss(model, ids), before)


@pytest.mark.parametrize(("change", "expected"), [
    ({}, ("invocation", "LoRA", "concat")),
    (dict(lora_rank=0), ("invocation", "LoRA", "concat")),
    (dict(lora_rank=0, lora_rank_qkv=0), ("invocation", "concat")),
    (dict(concat_embedding=False), ("invocation", "LoRA")),
    (dict(n_shared_blocks=0), ()),
])
def test_only_parts_that_are_there_can_be_switched_off(change, expected):
    config = replace(CONFIG, **change)
    assert lens.parts(config) == expected
    for part in {"invocation", "LoRA", "concat", "link"} - set(expected):
        with pytest.raises(ValueError, match=f"got '{part}'"):
            lens.switch_edits(config, part)


def test_an_invocation_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="got 3, the model has 3"):
        lens.switch_edits(CONFIG, "LoRA", 3)
