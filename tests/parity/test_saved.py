"""What we save, transformers opens as it is, with the same logits, wherever it has the variant."""

from dataclasses import replace

import pytest
import torch
from parity.reference import assert_same, reopen
from variants import BASE, PURE, VARIANTS, make_model, random_ids

from zamba_lab.checkpoints import load, save
from zamba_lab.checkpoints.config_write import published_type
from zamba_lab.config import ZambaConfig
from zamba_lab.generation import generate
from zamba_lab.model import Zamba

ZAMBA1 = replace(BASE, mixer="mamba1", n_shared_blocks=1, rope_theta=None, lora_rank=0)
MORE = {
    "Zamba": ZAMBA1,
    "Zamba, one head, no conv bias": replace(ZAMBA1, headdim=32, conv_bias=False, dt_rank=3),
    "Zamba, biased projections, grouped queries": replace(ZAMBA1, proj_bias=True, attn_kv_heads=2, attn_head_dim=6),
    "Zamba, untied, one invocation": replace(ZAMBA1, tie_embeddings=False, hybrid_layers=(2,)),
    "adapters everywhere": replace(BASE, lora_rank_qkv=3),
    "untied, each block once": replace(BASE, tie_embeddings=False, n_shared_blocks=3),
    "another base of positions": replace(BASE, rope_theta=77.5),
    "grouped queries": replace(BASE, attn_kv_heads=2),
    "pure mamba2, untied": replace(PURE, tie_embeddings=False),
    "pure mamba2, wide epsilon": replace(PURE, norm_eps=0.01),
    "pure mamba1, one head": replace(PURE, mixer="mamba1", headdim=32),
    "pure mamba1, one head, biased": replace(PURE, mixer="mamba1", headdim=32, proj_bias=True, tie_embeddings=False),
    "approximate gelu, wide epsilon": replace(BASE, activation="gelu_tanh", norm_eps=0.01),
}
SHARED = {name: config for name, config in {**VARIANTS, **MORE}.items() if published_type(config) != "zamba_lab"}


def model_of(config: ZambaConfig) -> Zamba:
    """A random model in float32, its matrices tuned down: a wild one amplifies rounding beyond any tolerance."""
    model = make_model(config).float()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith(".weight") and p.ndim == 2:
                p.mul_(0.7)
    return model


def test_the_variants_both_have():
    assert len(SHARED) >= 20, sorted(SHARED)
    assert set(MORE) <= set(SHARED)


@torch.no_grad()
@pytest.mark.parametrize("name", SHARED)
def test_the_reference_opens_what_we_save(name, tmp_path):
    model = model_of(SHARED[name])
    save(model, tmp_path)
    ids = random_ids(model.config, l=40)
    theirs = reopen(tmp_path)(ids).logits
    assert_same(model(ids), theirs, "logits")


@torch.no_grad()
@pytest.mark.parametrize("name", ["base", "Zamba", "pure mamba2", "pure mamba1, one head"])
def test_the_reference_continues_as_we_do(name, tmp_path):
    model = model_of(SHARED[name])
    save(model, tmp_path)
    ids = random_ids(model.config, l=9)
    theirs = reopen(tmp_path).generate(ids, max_new_tokens=6, do_sample=False, eos_token_id=None)[:, 9:]
    assert generate(model, ids, max_new_tokens=6).tolist() == theirs.tolist()


@torch.no_grad()
def test_the_reference_opens_shards_and_keeps_their_dtype(tmp_path):
    model = model_of(BASE).bfloat16()
    save(model, tmp_path, max_shard_bytes=10_000)
    theirs = reopen(tmp_path)
    assert theirs.dtype == torch.bfloat16
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    ids = random_ids(model.config)
    assert_same(model.float()(ids), theirs.float()(ids).logits, "logits in float32")


@pytest.mark.parametrize("name", ["base", "Zamba", "pure mamba2", "pure mamba1, one head"])
def test_what_the_reference_saves_again_is_still_ours(name, tmp_path):
    model = model_of(SHARED[name])
    save(model, tmp_path / "ours")
    reopen(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    again = load(tmp_path / "theirs")
    assert again.config == model.config
    for (key, a), b in zip(model.named_parameters(), again.parameters()):
        assert torch.equal(a, b), key
