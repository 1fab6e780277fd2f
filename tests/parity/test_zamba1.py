"""Zamba: the same numbers as the reference, whatever the variant.

Not compared: a prompt in pieces, since the reference starts each piece from an empty SSM state; ours is held to the
reference's pass over the whole prompt instead.
"""

import torch
from parity.laws import HybridLaws, pairs, rows_without_padding, unnoticed
from parity.reference import assert_same, build, checkpoint, prompt, reopen

from zamba_lab.checkpoints import load

CASES = {
    "two heads": {},
    "one head": dict(n_mamba_heads=1),
    "four heads": dict(n_mamba_heads=4),
    "no bias in the convolution": dict(mamba_conv_bias=False),
    "biases in the projections": dict(mamba_proj_bias=True),
    "rank of one for the step size": dict(mamba_dt_rank=1),
    "rank of five for the step size": dict(mamba_dt_rank=5, n_mamba_heads=4),
    "first and last layer hybrid": dict(hybrid=(0, 4)),
    "every layer hybrid": dict(num_hidden_layers=3, hybrid=(0, 1, 2)),
    "one invocation, head untied": dict(hybrid=(2,), tie_word_embeddings=False),
    "convolution of two": dict(mamba_d_conv=2),
    "convolution of three, expansion by three": dict(mamba_d_conv=3, mamba_expand=3),
    "odd numbers": dict(
        vocab_size=41, hidden_size=36, n_mamba_heads=3, mamba_d_state=5, num_attention_heads=3, num_key_value_heads=3, intermediate_size=29
    ),
    "grouped-query attention": dict(num_key_value_heads=2),
    "heads of another width": dict(attention_head_dim=10),
    "another activation and epsilon": dict(hidden_act="silu", rms_norm_eps=1e-2),
}


pair = pairs("zamba", CASES)


class TestZamba1(HybridLaws):
    pass


@torch.no_grad()
def test_prompt_in_pieces_is_the_whole_prompt(pair):
    ids, cache, start = prompt(pair.theirs, l=40), None, 0
    whole = pair.theirs(ids, use_cache=False).logits
    for end in (5, 6, 31, 40):
        ours, cache = pair.ours.extend(ids[:, start:end], cache)
        assert_same(ours, whole[:, start:end], f"logits of tokens {start}..{end}")
        start = end


@torch.no_grad()
def test_left_padding(pair):
    ids, mask, ours = rows_without_padding(pair)
    if not pair.theirs.config.mamba_proj_bias:  # with it the reference lets padding into the convolution
        theirs = pair.theirs(ids, attention_mask=mask, use_cache=False).logits
        assert_same(ours[mask == 1], theirs[mask == 1], "all rows, against the reference with padding")


@torch.no_grad()
def test_a_prompt_over_several_chunks_of_ours(tmp_path):
    theirs = build("zamba", num_hidden_layers=3, hybrid=(1, 2))
    ours, ids = checkpoint(theirs, tmp_path), prompt(theirs, l=270)
    assert_same(ours(ids), theirs(ids, use_cache=False).logits, "logits")


@torch.no_grad()
def test_half_precision_files_computed_in_float32(tmp_path):
    build("zamba").to(torch.bfloat16).save_pretrained(tmp_path)
    theirs, ours = reopen(tmp_path, dtype=torch.float32), load(tmp_path, dtype=torch.float32)
    assert load(tmp_path).embedding.weight.dtype == torch.bfloat16
    assert_same(ours(prompt(theirs)), theirs(prompt(theirs)).logits, "logits")


@torch.no_grad()
def test_sharded_files_are_one_checkpoint(tmp_path):
    theirs = build("zamba")
    ours = checkpoint(theirs, tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    assert_same(ours(prompt(theirs)), theirs(prompt(theirs)).logits, "logits")


@torch.no_grad()
def test_the_comparison_would_notice(tmp_path):
    """Each parameter of ours matters to what is compared: shake one a little and parity is gone."""
    assert not (names := unnoticed(build("zamba", mamba_proj_bias=True), tmp_path)), f"a change of 2% stays within 5 tolerances: {names}"
