"""Pure Mamba, the hybrid without hybrid layers: as the reference has it, and in the original layout."""

import json

import pytest
import torch
from parity.reference import Pair, assert_same, build, checkpoint, prompt

from zamba_lab.checkpoints import load
from zamba_lab.generation import generate
from zamba_lab.trace import Trace

# fmt: off
CASES = {
    "mamba": ("mamba", {}),
    "mamba with other sizes": (
        "mamba",
        dict(
            conv_kernel=3, expand=3, time_step_rank=5, use_conv_bias=False, use_bias=True, tie_word_embeddings=False,
            layer_norm_epsilon=1e-3,
        ),
    ),
    "mamba2": ("mamba2", {}),
    "mamba2 with groups, untied": ("mamba2", dict(n_groups=2, tie_word_embeddings=False)),
    "mamba2 with other sizes": ("mamba2", dict(conv_kernel=2, expand=3, num_heads=6, use_conv_bias=False, use_bias=True, chunk_size=7)),
}
# fmt: on


@pytest.fixture(scope="module", params=CASES)
def pair(request, tmp_path_factory) -> Pair:
    model_type, changes = CASES[request.param]
    theirs = build(model_type, **changes)
    return Pair(theirs, checkpoint(theirs, tmp_path_factory.mktemp("pure")))


@torch.no_grad()
def test_every_depth_and_the_logits(pair):
    ids = prompt(pair.theirs, l=70)
    theirs = pair.theirs(ids, output_hidden_states=True, use_cache=False)
    trace = Trace(keep=["*.resid_out", "final_norm"])
    assert_same(pair.ours(ids, trace=trace), theirs.logits, "logits")
    *streams, last = theirs.hidden_states
    for i, stream in enumerate(streams):
        assert_same(trace[f"layers.{i}.resid_out"], stream, f"stream out of depth {i}")
    assert_same(trace["final_norm"], last, "final norm")


@torch.no_grad()
def test_greedy_continuation(pair):
    ids = prompt(pair.theirs, l=12)
    theirs = pair.theirs.generate(ids, max_new_tokens=8, do_sample=False, eos_token_id=None)[:, 12:]
    assert generate(pair.ours, ids, max_new_tokens=8).tolist() == theirs.tolist()


ORIGINAL = dict(d_model=32, n_layer=4, vocab_size=61, rms_norm=True, residual_in_fp32=True, fused_add_norm=True, pad_vocab_size_multiple=8)


@torch.no_grad()
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize(("model_type", "ssm_cfg"), [("mamba", dict(d_state=6)), ("mamba2", dict(layer="Mamba2", d_state=8, headdim=16))])
def test_the_original_files_are_the_same_model(model_type, ssm_cfg, file, tmp_path):
    """Another spelling of the embedding, the tied head stored as well, a vocabulary to be rounded up, no model_type."""
    from safetensors.torch import save_file

    theirs = build(model_type, vocab_size=64)
    tensors = {name.replace("backbone.embeddings", "backbone.embedding"): t.clone() for name, t in theirs.state_dict().items()}
    assert "lm_head.weight" in tensors
    (torch.save if file.endswith(".bin") else save_file)(tensors, tmp_path / file)
    (tmp_path / "config.json").write_text(json.dumps({**ORIGINAL, "ssm_cfg": ssm_cfg}))
    ids = prompt(theirs)
    assert_same(load(tmp_path)(ids), theirs(ids).logits, "logits")
