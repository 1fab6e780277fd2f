"""The tables of names, on the published shapes: every stored name of every generation, once, of the right shape."""

import pytest
import torch

from zamba_lab.checkpoints.binding import bind, spare_names, stored_shapes
from zamba_lab.checkpoints.errors import CheckpointError
from zamba_lab.checkpoints.layouts import (
    BY_MODEL_TYPE,
    MAMBA1,
    MAMBA2,
    NATIVE,
    ZAMBA1,
    ZAMBA1_LEGACY,
    ZAMBA2,
    ZAMBA2_LEGACY,
    ZAMBA2_PLAIN,
    choose,
)
from zamba_lab.config import ZambaConfig
from zamba_lab.model import Zamba

# preset, layout, stored tensors, parameters, bytes of the files in bf16 (legacy files hold adapters that nothing uses)
PUBLISHED = [
    ("zamba-7b-v1", ZAMBA1, 784, 7_232_490_496, 14_464_980_992),
    ("zamba-7b-v1", ZAMBA1_LEGACY, 784, 7_232_490_496, 14_464_980_992),
    ("zamba2-1.2b", ZAMBA2, 406, 1_215_064_704, 2_430_129_408),
    ("zamba2-1.2b", ZAMBA2_LEGACY, 406, 1_215_064_704, 2_430_129_408),
    ("zamba2-2.7b", ZAMBA2, 531, 2_662_214_560, 5_324_429_120),
    ("zamba2-2.7b", ZAMBA2_LEGACY, 549, 2_662_214_560, 5_377_513_280),
    ("zamba2-2.7b", ZAMBA2_PLAIN, 545, 2_662_214_560, 5_377_513_280),
    ("zamba2-7b", ZAMBA2, 786, 7_356_749_648, 14_713_499_296),
    ("zamba2-7b", ZAMBA2_LEGACY, 812, 7_356_749_648, 14_820_847_264),
    ("mamba-130m", MAMBA1, 242, 129_135_360, 258_270_720),
    ("mamba2-130m", MAMBA2, 218, 128_989_632, 257_979_264),
]
NAMED = {
    ("zamba-7b-v1", ZAMBA1): {
        "model.embed_tokens.weight": (32000, 3712),
        "model.layers.2.shared_transf.self_attn.q_proj.weight": (7424, 7424),
        "model.layers.2.shared_transf.self_attn.o_proj.weight": (3712, 7424),
        "model.layers.2.shared_transf.feed_forward.up_proj.weight": (14848, 3712),
        "model.layers.73.linear.weight": (3712, 3712),
        "model.layers.0.mamba.x_proj_weight": (2, 264, 3712),
        "model.layers.0.mamba.dt_proj_weight": (2, 3712, 232),
        "model.layers.67.mamba_decoder.mamba.A_log": (2, 3712, 16),
        "model.layers.75.mamba.in_proj.weight": (14848, 3712),
        "model.final_layernorm.weight": (3712,),
    },
    ("zamba-7b-v1", ZAMBA1_LEGACY): {
        "model.block.feed_forward.gate_proj.weight": (14848, 3712),
        "model.linear_layers.12.weight": (3712, 3712),
        "model.mamba_layers.73.mamba.dt_proj_bias": (2, 3712),
    },
    ("zamba2-1.2b", ZAMBA2): {
        "model.layers.5.shared_transformer.self_attn.linear_k_adapter_list.5.0.weight": (128, 4096),
        "model.layers.5.shared_transformer.self_attn.linear_k_adapter_list.5.1.weight": (4096, 128),
        "model.layers.35.mamba_decoder.mamba.in_proj.weight": (8512, 2048),
        "model.layers.35.mamba_decoder.mamba.conv1d.weight": (4352, 1, 4),
    },
    ("zamba2-1.2b", ZAMBA2_LEGACY): {
        "model.blocks.0.self_attn.linear_v_lora_B_list.3.weight": (4096, 128),
        "model.mamba_layers.5.mamba.in_proj.0.weight": (8512, 2048),
    },
    ("zamba2-2.7b", ZAMBA2): {
        "model.layers.12.shared_transformer.feed_forward.gate_up_proj.weight": (20480, 2560),
        "model.layers.12.shared_transformer.feed_forward.gate_up_proj_adapter_list.7.1.weight": (20480, 128),
        "model.layers.6.shared_transformer.feed_forward.gate_up_proj_adapter_list.8.0.weight": (128, 2560),
        "model.layers.51.linear.weight": (2560, 2560),
        "model.layers.53.mamba.norm.weight": (5120,),
    },
    ("zamba2-2.7b", ZAMBA2_LEGACY): {
        "model.blocks.1.feed_forward.linear_fc1_lora_A_list.0.weight": (128, 2560),  # no invocation uses it
        "model.blocks.1.feed_forward.linear_fc2.weight": (2560, 10240),
        "model.linear_layers.8.weight": (2560, 2560),
    },
    ("zamba2-2.7b", ZAMBA2_PLAIN): {
        "embedding.weight": (32000, 2560),
        "decoder.blocks.1.sa.mixer.linear_qkv.weight": (15360, 5120),
        "decoder.block_map.51.weight": (2560, 2560),
        "decoder.blocks.0.mlp.mixer.linear_fc1_lora_B_list.1.weight": (20480, 128),
        "decoder.layers.53.mixer.in_proj.0.weight": (10448, 2560),
    },
    ("zamba2-7b", ZAMBA2): {
        "model.layers.11.shared_transformer.feed_forward.gate_up_proj_adapter_list.11.0.weight": (128, 3584),
        "model.layers.6.shared_transformer.input_layernorm.weight": (7168,),
        "model.layers.77.mamba_decoder.mamba.in_proj.weight": (14704, 3584),
        "model.layers.80.mamba.dt_bias": (112,),
    },
    ("zamba2-7b", ZAMBA2_LEGACY): {
        "model.blocks.0.feed_forward.linear_fc1_lora_B_list.11.weight": (28672, 128),  # no invocation uses it
        "model.mamba_layers.80.mamba.norm.weight": (7168,),
    },
    ("mamba-130m", MAMBA1): {
        "backbone.embeddings.weight": (50280, 768),
        "backbone.layers.23.mixer.x_proj.weight": (80, 1536),
        "backbone.layers.23.mixer.dt_proj.bias": (1536,),
        "backbone.layers.0.mixer.A_log": (1536, 16),
        "backbone.norm_f.weight": (768,),
    },
    ("mamba2-130m", MAMBA2): {
        "backbone.layers.0.mixer.in_proj.weight": (3352, 768),
        "backbone.layers.23.mixer.conv1d.weight": (1792, 1, 4),
    },
}


def on_meta(config: ZambaConfig) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return dict(Zamba(config).named_parameters())


def stored(layout, config) -> dict[str, tuple[int, ...]]:
    """Every name of a full checkpoint in its proper spelling, with its shape."""
    parameters, found = on_meta(config), []
    for binding in bind(layout, config, parameters):
        found += zip([names[0] for names in binding.stored], stored_shapes(binding, parameters, config))
    found += [(name, tuple(parameters[ours].shape)) for name, ours in spare_names(layout, config).items() if ours in parameters]
    assert len(dict(found)) == len(found), "a stored name stands for two tensors"
    return dict(found)


@pytest.mark.parametrize(
    ("preset", "layout", "count", "n_params", "n_bytes"), PUBLISHED, ids=[f"{row[0]}-{row[1].name}" for row in PUBLISHED]
)
def test_published_shapes_in_every_layout(preset, layout, count, n_params, n_bytes):
    config = ZambaConfig.preset(preset)
    shapes = stored(layout, config)
    assert len(shapes) == count
    assert 2 * sum(torch.Size(shape).numel() for shape in shapes.values()) == n_bytes
    assert sum(p.numel() for p in on_meta(config).values()) == n_params == config.n_params
    assert {name: shapes.get(name) for name in NAMED[preset, layout]} == NAMED[preset, layout]


@pytest.mark.parametrize(("preset", "layout"), NAMED, ids=[f"{preset}-{layout.name}" for preset, layout in NAMED])
def test_a_layout_is_known_by_its_names(preset, layout):
    model_type = next(key for key, layouts in BY_MODEL_TYPE.items() if layout in layouts.values())
    assert choose(model_type, stored(layout, ZambaConfig.preset(preset))) is layout


def test_names_of_no_layout_are_refused():
    with pytest.raises(CheckpointError, match="start with model.layers. or model.mamba_layers. or decoder.layers."):
        choose("zamba2", ["transformer.h.0.weight"])


@pytest.mark.parametrize(
    ("layout", "changes"),
    [
        (ZAMBA2, dict(lora_rank_qkv=3)),
        (ZAMBA2_LEGACY, dict(lora_rank_qkv=3)),
        (ZAMBA2_PLAIN, dict(lora_rank_qkv=3)),
        (ZAMBA1, dict(mixer="mamba1", n_shared_blocks=1, lora_rank=0)),
        (ZAMBA1_LEGACY, dict(mixer="mamba1", n_shared_blocks=1, lora_rank=0)),
        (MAMBA1, dict(mixer="mamba1", headdim=32, n_shared_blocks=0)),
        (MAMBA2, dict(n_shared_blocks=0)),
        (NATIVE, dict(lora_rank_qkv=3, proj_bias=True)),
        (NATIVE, dict(mixer="attention", n_shared_blocks=0, mlp_bias=True)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_there_and_back_is_the_identity(layout, changes):
    config = ZambaConfig(
        **{
            **dict(
                vocab_size=11, d_model=16, n_layers=5, hybrid_layers=(1, 2, 4), d_state=3, headdim=8, attn_heads=2, d_mlp=6, lora_rank=3
            ),
            **changes,
        }
    )
    torch.manual_seed(0)
    parameters = dict(Zamba(config).named_parameters())
    seen = set()
    for binding in bind(layout, config, parameters):
        ours = [parameters[name] for name in binding.ours]
        back = binding.transform.to_ours(binding.transform.to_stored(ours, config), config)
        assert all(torch.equal(a, b) for a, b in zip(ours, back, strict=True)), binding.ours
        seen.update(binding.ours)
    assert seen == set(parameters)


def test_where_stored_rows_stand_in_another_order():
    """Zamba's in_proj alternates x and z; the plain file's attention goes head by head."""
    config = ZambaConfig(mixer="mamba1", d_model=2, n_layers=1, expand=1, headdim=1, n_shared_blocks=0)
    row = {b.ours[0]: b for b in bind(ZAMBA1, config, on_meta(config))}["layers.0.mamba.in_proj.weight"]
    assert row.transform.to_ours([torch.tensor([[1], [-1], [2], [-2]])], config)[0].tolist() == [[1], [2], [-1], [-2]]

    config = ZambaConfig(d_model=4, n_layers=1, hybrid_layers=(0,), n_shared_blocks=1, attn_heads=2, attn_head_dim=2, headdim=4)
    row = {b.ours[0]: b for b in bind(ZAMBA2_PLAIN, config, on_meta(config))}["shared_blocks.0.attention.q.weight"]
    rows = torch.tensor([10, 11, 20, 21, 30, 31, 12, 13, 22, 23, 32, 33])[:, None]
    assert [t[:, 0].tolist() for t in row.transform.to_ours([rows], config)] == [[10, 11, 12, 13], [20, 21, 22, 23], [30, 31, 32, 33]]


def test_copies_of_a_block_are_looked_for_under_its_later_depths():
    config = ZambaConfig(n_layers=6, hybrid_layers=(0, 2, 3, 5))
    names = {b.ours[0]: b.stored[0] for b in bind(ZAMBA2, config, on_meta(config))}
    tail = "shared_transformer.self_attn.q_proj.weight"
    assert names["shared_blocks.1.attention.q.weight"] == (f"model.layers.2.{tail}", f"model.layers.5.{tail}")
    adapter = "shared_transformer.feed_forward.gate_up_proj_adapter_list.2.0.weight"
    assert names["layers.3.invocation.adapters.mlp.down.weight"] == (f"model.layers.0.{adapter}", f"model.layers.3.{adapter}")
    assert names["embedding.weight"] == ("model.embed_tokens.weight", "lm_head.weight")


def test_a_tensor_of_its_own_is_nobodys_copy():
    config = ZambaConfig(tie_embeddings=False)
    names = {b.ours[0]: b.stored[0] for b in bind(ZAMBA2, config, on_meta(config))}
    assert names["embedding.weight"] == ("model.embed_tokens.weight",)
    assert names["head.weight"] == ("lm_head.weight",)


def test_what_a_layout_has_no_name_for_is_refused():
    config = ZambaConfig(mixer="attention", n_shared_blocks=0)
    with pytest.raises(CheckpointError, match="zamba2 layout has no name for layers.0.norm_in.weight"):
        bind(ZAMBA2, config, on_meta(config))
    config = ZambaConfig(attn_kv_heads=2)
    plain = next(b for b in bind(ZAMBA2_PLAIN, config, on_meta(config)) if len(b.ours) == 3)
    with pytest.raises(CheckpointError, match="as many key heads as query heads: got 2 and 8"):
        stored_shapes(plain, on_meta(config), config)
