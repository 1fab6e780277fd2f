"""The older layouts: a checkpoint of the reference's, renamed by hand into each, is still the same model.

The names are written out here once more, independently of the package's tables.
"""

import json
import re

import pytest
import torch
from einops import rearrange
from parity.reference import assert_same, build, prompt
from safetensors.torch import load_file, save_file

from zamba_lab.checkpoints import load

HYBRID = (1, 3, 4)  # blocks 0, 1, 0
# fmt: off
LEGACY_CONFIG = dict(
    model_type="zamba2", vocab_size=67, hidden_size=32, num_hidden_layers=6, state_size=8, conv_dimension=4, expansion_factor=2,
    mamba_headdim=16, num_attention_heads=4, num_key_value_heads=4, ffn_hidden_size=48, lora_rank=3, num_mem_blocks=2, use_mem_rope=True,
    use_shared_block_lora=True, use_shared_attention_lora=True, kv_channels=8, gated_linear_unit=True, add_bias_linear=False,
    rope_theta=10000, layers_block_type=["m", "g", "m", "g", "g", "m"],
)
# fmt: on


def moved(name: str) -> str:
    """A name of today's layout in the legacy one."""
    rules = (
        (r"layers\.(\d+)\.linear\.weight", lambda m: f"linear_layers.{HYBRID.index(int(m[1]))}.weight"),
        (r"layers\.(\d+)\.shared_transformer\.", lambda m: f"blocks.{HYBRID.index(int(m[1])) % 2}."),
        (r"layers\.(\d+)\.(mamba_decoder\.)?", lambda m: f"mamba_layers.{m[1]}."),
        (r"gate_up_proj_adapter_list\.(\d+)\.0", r"linear_fc1_lora_A_list.\1"),
        (r"gate_up_proj_adapter_list\.(\d+)\.1", r"linear_fc1_lora_B_list.\1"),
        (r"linear_(.)_adapter_list\.(\d+)\.0", r"linear_\1_lora_A_list.\2"),
        (r"linear_(.)_adapter_list\.(\d+)\.1", r"linear_\1_lora_B_list.\2"),
        (r"gate_up_proj\.", "linear_fc1."),
        (r"down_proj\.", "linear_fc2."),
    )
    for pattern, new in rules:
        name = re.sub(r"(?<!\w)" + pattern, new, name)
    return name


def legacy(tensors: dict, listed: bool) -> dict:
    """Every block holds adapters for every invocation; those that are not its own are noise."""
    found = {moved(name): t for name, t in tensors.items()}
    for name in [name for name in found if "_lora_" in name]:
        block = re.search(r"blocks\.(\d)", name)[1]
        found[name.replace(f"blocks.{block}", f"blocks.{1 - int(block)}")] = torch.randn_like(found[name])
    return {name.replace("in_proj.", "in_proj.0.") if listed else name: t for name, t in found.items()}


def plain(tensors: dict) -> dict:
    """The names of the authors' plain-PyTorch code; q, k and v in one matrix, head by head."""
    found = {}
    for name, t in legacy(tensors, listed=True).items():
        name = name.removeprefix("model.")
        name = re.sub(r"^mamba_layers\.(\d+)\.mamba\.", r"decoder.layers.\1.mixer.", name)
        name = re.sub(r"^mamba_layers\.(\d+)\.input_layernorm\.", r"decoder.layers.\1.norm.", name)
        name = re.sub(r"^linear_layers\.(\d+)\.", lambda m: f"decoder.block_map.{HYBRID[int(m[1])]}.", name)
        name = re.sub(r"^blocks\.(\d)\.input_layernorm\.", r"decoder.blocks.\1.sa.norm.", name)
        name = re.sub(r"^blocks\.(\d)\.pre_ff_layernorm\.", r"decoder.blocks.\1.mlp.norm.", name)
        name = re.sub(r"^blocks\.(\d)\.feed_forward\.", r"decoder.blocks.\1.mlp.mixer.", name)
        name = re.sub(r"^blocks\.(\d)\.self_attn\.o_proj\.", r"decoder.blocks.\1.sa.mixer.linear_proj.", name)
        name = re.sub(r"^blocks\.(\d)\.self_attn\.", r"decoder.blocks.\1.sa.mixer.", name)
        found[{"embed_tokens.weight": "embedding.weight", "final_layernorm.weight": "decoder.final_layernorm.weight"}.get(name, name)] = t
    for b in "01":
        qkv = [found.pop(f"decoder.blocks.{b}.sa.mixer.{x}_proj.weight") for x in "qkv"]
        found[f"decoder.blocks.{b}.sa.mixer.linear_qkv.weight"] = rearrange(qkv, "x (h p) d -> (h x p) d", h=4)
    return found


@torch.no_grad()
@pytest.mark.parametrize("layout", ["legacy", "legacy, in_proj listed", "legacy, with a head", "plain"])
def test_zamba2_renamed(layout, tmp_path):
    theirs = build("zamba2", use_mem_rope=True, use_shared_attention_adapter=layout != "plain")
    theirs.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    config = {**LEGACY_CONFIG, "use_shared_attention_lora": layout != "plain"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    ids = prompt(theirs)
    if layout == "plain":
        torch.save(plain(tensors), tmp_path / "direct_from_pytorch.pt")
        ours = load(tmp_path / "direct_from_pytorch.pt")
    else:
        renamed = legacy(tensors, listed="listed" in layout)
        if "head" in layout:
            renamed["lm_head.weight"] = renamed["model.embed_tokens.weight"].clone()
        save_file(renamed, tmp_path / "model.safetensors")
        ours = load(tmp_path)
    assert_same(ours(ids), theirs(ids).logits, "logits")


@torch.no_grad()
def test_zamba_renamed(tmp_path):
    theirs = build("zamba")  # hybrid depths 1 and 3
    theirs.save_pretrained(tmp_path)
    tensors = {}
    for name, t in load_file(tmp_path / "model.safetensors").items():
        name = re.sub(r"layers\.1\.shared_transf\.", "block.", name)
        name = re.sub(r"layers\.(\d)\.linear\.", lambda m: f"linear_layers.{(1, 3).index(int(m[1]))}.", name)
        tensors[re.sub(r"\blayers\.(\d)\.(mamba_decoder\.)?", r"mamba_layers.\1.", name)] = t
    save_file(tensors, tmp_path / "model.safetensors")
    ids = prompt(theirs)
    assert_same(load(tmp_path)(ids), theirs(ids).logits, "logits")
