"""Zamba2: the same numbers as the reference, whatever the variant."""

import pytest
import torch
from parity.laws import HybridLaws, pairs, rows_without_padding, unnoticed
from parity.reference import assert_same, build, cached, checkpoint, distance, prompt, reopen

from zamba_lab.checkpoints import load

# fmt: off
CASES = {
    "one block": dict(num_mem_blocks=1),
    "two blocks": dict(num_hidden_layers=7, hybrid=(1, 2, 4, 6)),
    "three blocks at irregular depths": dict(num_mem_blocks=3, num_hidden_layers=9, hybrid=(0, 1, 3, 6, 7, 8)),
    "one block at every depth": dict(num_mem_blocks=1, num_hidden_layers=3, hybrid=(0, 1, 2)),
    "only the first layer hybrid": dict(hybrid=(0,), num_mem_blocks=1),
    "only the last layer hybrid": dict(hybrid=(5,), num_mem_blocks=1),
    "more blocks than invocations": dict(num_mem_blocks=3, hybrid=(2, 3)),
    "odd numbers": dict(
        vocab_size=41, hidden_size=36, num_hidden_layers=5, hybrid=(1, 4), n_mamba_heads=9, mamba_d_state=5, num_attention_heads=3,
        intermediate_size=29, adapter_rank=7,
    ),
    "two groups": dict(mamba_ngroups=2),
    "four groups of two heads": dict(mamba_ngroups=4, n_mamba_heads=8, hidden_size=48, num_attention_heads=6),
    "one head": dict(n_mamba_heads=1),
    "heads of one channel": dict(hidden_size=16, n_mamba_heads=32, num_hidden_layers=3, hybrid=(1,)),
    "expansion by three": dict(mamba_expand=3),
    "convolution of two": dict(mamba_d_conv=2),
    "convolution of three": dict(mamba_d_conv=3),
    "chunk that does not divide": dict(chunk_size=7),
    "chunk of one": dict(chunk_size=1, num_hidden_layers=3, hybrid=(1,)),
    "chunk of the published models": dict(chunk_size=256),
    "chunk longer than the prompt": dict(chunk_size=512, num_hidden_layers=3, hybrid=(1,)),
    "grouped-query attention": dict(num_key_value_heads=2),
    "multi-query attention with positions": dict(num_key_value_heads=1, use_mem_rope=True),
    "adapters on attention": dict(use_shared_attention_adapter=True),
    "positions": dict(use_mem_rope=True),
    "positions of another base": dict(use_mem_rope=True, rope_parameters={"rope_type": "default", "rope_theta": 300.0}),
    "all of it": dict(use_mem_rope=True, use_shared_attention_adapter=True, mamba_ngroups=2, hybrid=(0, 2, 3, 5)),
    "biases": dict(add_bias_linear=True, use_mem_rope=True),
    "another activation": dict(hidden_act="silu"),
    "approximate gelu": dict(hidden_act="gelu_pytorch_tanh"),
    "another epsilon": dict(rms_norm_eps=1e-2),
    "untied head": dict(tie_word_embeddings=False, num_mem_blocks=3),
}
# fmt: on


pair = pairs("zamba2", CASES)


class TestZamba2(HybridLaws):
    pass


@torch.no_grad()
def test_full_forward_over_many_chunks(pair):
    ids = prompt(pair.theirs, l=300)
    assert_same(pair.ours(ids), pair.theirs(ids, use_cache=False).logits, "logits")


@torch.no_grad()
def test_prompt_in_pieces(pair):
    ids, past, cache, start = prompt(pair.theirs, l=60), None, None, 0
    for end in (5, 6, 38, 60):
        theirs, past = cached(pair.theirs, ids[:, start:end], past)
        ours, cache = pair.ours.extend(ids[:, start:end], cache)
        assert_same(ours, theirs, f"logits of tokens {start}..{end}")
        start = end


@torch.no_grad()
def test_left_padding(pair):
    ids, mask, ours = rows_without_padding(pair)
    if pair.theirs.config.add_bias_linear:  # there the reference lets padding into the convolution
        return
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    theirs = pair.theirs(ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
    assert_same(ours[mask == 1], theirs[mask == 1], "all rows, against the reference with padding")


def test_sharded_files_are_one_checkpoint(tmp_path):
    theirs = build("zamba2")
    ours = checkpoint(theirs, tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    with torch.no_grad():
        assert_same(ours(prompt(theirs)), theirs(prompt(theirs)).logits, "logits")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_files_computed_in_float32(tmp_path, dtype):
    build("zamba2", use_mem_rope=True, time_step_min=1e-20).to(dtype).save_pretrained(tmp_path)
    theirs, ours = reopen(tmp_path, dtype=torch.float32), load(tmp_path, dtype=torch.float32)
    assert load(tmp_path).embedding.weight.dtype == dtype
    with torch.no_grad():
        assert_same(ours(prompt(theirs, l=270)), theirs(prompt(theirs, l=270)).logits, "logits")


def test_half_precision_computation_stays_close(tmp_path):
    build("zamba2", time_step_min=1e-20).to(torch.bfloat16).save_pretrained(tmp_path)
    theirs, ours, exact = reopen(tmp_path), load(tmp_path), load(tmp_path, dtype=torch.float64)
    ids = prompt(theirs, l=100)
    with torch.no_grad():
        truth = exact(ids)
        noise, off = ((model - truth).abs().max() for model in (theirs(ids).logits, ours(ids)))
    assert off <= 2 * noise, f"in bfloat16 ours is {off:.3g} off, the reference {noise:.3g}"


@pytest.fixture(scope="module")
def sleepy(tmp_path_factory):
    """Step sizes far below the reference's clamp: read with its clamp still on."""
    model, folder = build("zamba2"), tmp_path_factory.mktemp("sleepy")
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith("dt_bias"):
                p.fill_(-9.0)
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def test_dt_min_reproduces_the_clamp_of_the_reference(sleepy):
    theirs = reopen(sleepy)
    ids = prompt(theirs, l=80)
    assert_same(load(sleepy, dt_min=theirs.config.time_step_min)(ids), theirs(ids).logits, "logits, both clamped")
    assert distance(load(sleepy)(ids), theirs(ids).logits) > 100


@torch.no_grad()
def test_without_a_clamp_prompt_and_decoding_agree_where_the_reference_does_not(sleepy):
    theirs, ours = reopen(sleepy), load(sleepy)
    ids = prompt(theirs, l=24)
    past, cache = cached(theirs, ids[:, :8])[1], ours.extend(ids[:, :8])[1]
    for t in range(8, 24):
        step, past = cached(theirs, ids[:, t : t + 1], past)
        ours_step, cache = ours.extend(ids[:, t : t + 1], cache)
    assert_same(ours_step, ours(ids)[:, -1:], "ours step by step, against ours at once")
    assert distance(step, theirs(ids).logits[:, -1:]) > 100


@torch.no_grad()
def test_the_comparison_would_notice(tmp_path):
    """Each parameter of ours matters to what is compared: shake one a little and parity is gone."""
    assert not (
        names := unnoticed(build("zamba2", use_mem_rope=True, use_shared_attention_adapter=True, add_bias_linear=True), tmp_path)
    ), f"a change of 2% stays within 5 tolerances: {names}"
