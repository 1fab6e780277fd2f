"""Laws of the plan: what it counts is what real tensors are, and the page is what the function says."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from train.tiny import TINY, tiny_model, with_documents

import zamba_lab.recipes.plan as plans
from zamba_lab import native
from zamba_lab.config import ZambaConfig
from zamba_lab.recipes.plan import kept_per_token, page, plan, unit_params
from zamba_lab.train import TrainConfig
from zamba_lab.train.batches import micro_batches
from zamba_lab.train.mixture import Mixture
from zamba_lab.train.step import adamw, train_step

SHAPES = [TINY, replace(TINY, n_shared_blocks=2, lora_rank_qkv=3), replace(TINY, n_shared_blocks=0), replace(TINY, tie_embeddings=False)]


def test_the_page_is_what_the_function_says():
    assert (Path(plans.__file__).parent / "PLAN.md").read_text(encoding="utf-8") == page()


@pytest.mark.parametrize("config", SHAPES)
def test_state_is_what_weights_gradients_and_moments_take(config):
    model = tiny_model(**{name: getattr(config, name) for name in ("n_shared_blocks", "lora_rank_qkv", "tie_embeddings")})
    optimiser, training = adamw(model, TrainConfig()), TrainConfig(batch=2, length=9)
    train_step(model, optimiser, micro_batches(Mixture.of(with_documents(200)), 0, training, 1), 1e-3, 1.0)
    found = plan(model.config, gpus=1).state_bytes
    assert found["weights"] == sum(p.nbytes for p in model.parameters())
    assert found["gradients"] == sum(p.grad.nbytes for p in model.parameters())
    assert found["moments"] == sum(optimiser.state[p][name].nbytes for p in model.parameters() for name in ("exp_avg", "exp_avg_sq"))
    assert plan(model.config, gpus=8).state_bytes["weights"] == found["weights"] / 8


@pytest.mark.parametrize("config", SHAPES)
def test_units_are_the_modules_that_are_wrapped(config):
    model, units = (
        tiny_model(**{name: getattr(config, name) for name in ("n_shared_blocks", "lora_rank_qkv", "tie_embeddings")}),
        unit_params(config),
    )

    def count(module):
        return sum(p.numel() for p in module.parameters())

    assert units["layers"] == [count(layer) for layer in model.layers]
    assert units["blocks"] == [count(block) for block in model.shared_blocks]
    assert units["rest"] == [count(model) - sum(units["layers"]) - sum(units["blocks"])]


@pytest.mark.skipif(not native.available(), reason="what is kept is counted for the native operators")
@pytest.mark.parametrize("depths, rank", [((), 0), ((1,), 0), ((1,), 4), ((0, 1, 2), 4)])
def test_activations_are_what_autograd_keeps(depths, rank):
    """Counted by storage, each once, weights left out; positions' angles and a token's ids are the small rest."""
    # fmt: off
    config = ZambaConfig(
        vocab_size=40, d_model=64, n_layers=3, d_state=8, headdim=16, n_shared_blocks=1, hybrid_layers=depths, attn_heads=4, d_mlp=96,
        lora_rank=rank, tie_embeddings=False,
    )
    # fmt: on
    model, kept = plans_model(config), {}
    owned = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(t):
        if t.untyped_storage().data_ptr() not in owned:
            kept[t.untyped_storage().data_ptr()] = t
        return t

    ids = torch.randint(40, (2, 50))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        logits = model(ids)
    found = sum(t.untyped_storage().nbytes() for t in kept.values()) / 4 / ids.numel()
    parts = kept_per_token(model.config)
    expected = config.n_layers * parts["layer"] + model.config.n_invocations * parts["invocation"] + parts["end"]
    assert logits.requires_grad and found == pytest.approx(expected, rel=0.05), (found, expected)


def plans_model(config):
    from zamba_lab.model import Zamba

    torch.manual_seed(0)
    return Zamba(config)


def test_more_gpus_hold_less_each_and_checkpointing_halves_the_activations():
    c = ZambaConfig.preset("zamba2-1.2b")
    few, many, without = plan(c, 8), plan(c, 64), plan(c, 8, checkpointing=False)
    assert many.total_bytes < few.total_bytes and without.activation_bytes > 2 * few.activation_bytes
    assert without.flops == 0.75 * few.flops and few.tokens_per_second < 8 * 989e12 / c.flops_per_token(1) / 4
    assert plan(c, 1).sent_bytes == 0 and "| GPUs | 8 H100 |" in few.table()


@pytest.mark.parametrize("wrong, rule", [({"gpu": "abacus"}, "one of H100, A100"), ({"gpus": 0}, "1 or more"), ({"share": 0}, "share in")])
def test_what_is_no_plan_is_refused(wrong, rule):
    with pytest.raises(ValueError, match=rule):
        plan(**{"config": ZambaConfig.preset("zamba2-1.2b"), "gpus": 8} | wrong)
    with pytest.raises(ValueError, match="a plan is for Mamba-2 layers"):
        plan(ZambaConfig.preset("zamba-7b-v1"), 8)
