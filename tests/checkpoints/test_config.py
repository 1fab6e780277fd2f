"""config.json, read and written: every spelling, every default, every contradiction."""

import contextlib
import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import fuzzing
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from variants import VARIANTS

from zamba_lab.checkpoints.config_read import meaning, read_config
from zamba_lab.checkpoints.config_write import published_type, write_config
from zamba_lab.checkpoints.errors import CheckpointError
from zamba_lab.checkpoints.published import ignored_keys
from zamba_lab.config import ZambaConfig

FILES = json.loads(Path(__file__).with_name("published.json").read_text())
CURRENT, LEGACY = ({name: group["common"] | own for name, own in group["zamba2"].items()} for group in (FILES["current"], FILES["legacy"]))
PUBLISHED = CURRENT | {"zamba-7b-v1": FILES["current"]["zamba-7b-v1"]}
MAMBA, MAMBA_HF, MAMBA2 = FILES["pure"].values()


def with_layers(raw: dict, preset: str, plain: str, hybrid: str) -> dict:
    config = ZambaConfig.preset(preset)
    kinds = [hybrid if i in config.hybrid_layers else plain for i in range(config.n_layers)]
    return {**raw, "layers_block_type": kinds}


def small(**changes) -> dict:
    """A published config of a few layers."""
    raw = dict(
        model_type="zamba2",
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=3,
        mamba_headdim=16,
        layers_block_type=["mamba", "hybrid", "mamba"],
        num_attention_heads=4,
    )
    return {key: value for key, value in {**raw, **changes}.items() if value is not ...}


@pytest.mark.parametrize("preset", PUBLISHED)
@pytest.mark.parametrize("plain", ["mamba", "linear_attention"])
def test_published_files_are_the_presets(preset, plain):
    assert read_config(with_layers(PUBLISHED[preset], preset, plain, "hybrid")) == ZambaConfig.preset(preset)


@pytest.mark.parametrize("preset", LEGACY)
def test_legacy_files_are_the_presets(preset):
    assert read_config(with_layers(LEGACY[preset], preset, "m", "g")) == ZambaConfig.preset(preset)


def test_the_misspelt_key_of_one_published_file():
    raw = with_layers(LEGACY["zamba2-1.2b"], "zamba2-1.2b", "m", "g")
    raw["se_shared_attention_lora"] = raw.pop("use_shared_attention_lora")
    assert read_config(raw) == ZambaConfig.preset("zamba2-1.2b")


@pytest.mark.parametrize("preset", [name for name in PUBLISHED if name.startswith("zamba2")])
def test_files_saved_by_a_later_library_are_the_presets(preset):
    raw = with_layers(PUBLISHED[preset], preset, "linear_attention", "hybrid")
    raw |= {
        "rope_parameters": {"rope_theta": raw.pop("rope_theta"), "rope_type": "default"},
        "dtype": "bfloat16",
        "use_mem_eff_path": False,
        "tie_word_embeddings": True,
        "transformers_version": "5.23.0",
    }
    assert read_config(raw) == ZambaConfig.preset(preset)


@pytest.mark.parametrize(("raw", "preset"), [(MAMBA, "mamba-130m"), (MAMBA_HF, "mamba-130m"), (MAMBA2, "mamba2-130m")])
def test_pure_mamba_files_are_the_presets(raw, preset):
    config = read_config(raw)
    assert meaning(config) == meaning(ZambaConfig.preset(preset))
    assert replace(config, dt_rank=ZambaConfig.preset(preset).dt_rank) == ZambaConfig.preset(preset)


def test_the_two_libraries_defaults_for_pure_mamba2_differ():
    original = read_config({**MAMBA2, "ssm_cfg": {"layer": "Mamba2", "d_state": 16}})
    assert (original.n_groups, original.tie_embeddings, original.d_state) == (1, True, 16)
    other = read_config(dict(model_type="mamba2", hidden_size=512, num_hidden_layers=2, vocab_size=9))
    assert (other.n_groups, other.tie_embeddings, other.d_state, other.ssm_heads) == (8, False, 128, 16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(ssm_cfg={"layer": "Mamba3"}), "ssm_cfg.layer must be one of Mamba1, Mamba2: got 'Mamba3'"),
        (dict(ssm_cfg=3), "'ssm_cfg' must be a dict, got 3"),
        (dict(ssm_cfg={"colour": 3}), r"no code for: \['colour'\]"),
        (dict(attn_layer_idx=[3]), r"code only for attn_layer_idx = \[\], got \[3\]"),
        (dict(d_intermediate=64), "code only for d_intermediate = 0, got 64"),
        (dict(rms_norm=False), "code only for rms_norm = True, got False"),
        (dict(pad_vocab_size_multiple=0), "pad_vocab_size_multiple must be 1 or more: got 0"),
    ],
)
def test_pure_mamba_refused_with_rule_and_values(changes, message):
    with pytest.raises(CheckpointError, match=message):
        read_config({**MAMBA2, **changes})
    with pytest.raises(CheckpointError, match="num_heads is 3, but what it follows from gives 8"):
        read_config(dict(model_type="mamba2", hidden_size=256, num_hidden_layers=2, vocab_size=9, num_heads=3))


def test_layers_by_their_ids_or_by_zambas_rule():
    raw = {**PUBLISHED["zamba2-2.7b"]}
    assert read_config(raw) == ZambaConfig.preset("zamba2-2.7b")
    zamba = read_config(PUBLISHED["zamba-7b-v1"])
    assert zamba.hybrid_layers == (2, *range(7, 76, 6))
    assert zamba == ZambaConfig.preset("zamba-7b-v1")


def test_absent_keys_mean_the_stated_defaults():
    config = read_config(small(mamba_headdim=..., num_attention_heads=..., hidden_size=64))
    # fmt: off
    expected = ZambaConfig(
        vocab_size=50, d_model=64, n_layers=3, d_state=64, d_conv=4, expand=2, headdim=64, n_groups=1, n_shared_blocks=1,
        hybrid_layers=(1,), attn_heads=32, d_mlp=256, lora_rank=128, lora_rank_qkv=0, rope_theta=None, proj_bias=False, mlp_bias=False,
        tie_embeddings=True, norm_eps=1e-5, max_context=4096, init="authors",
    )
    # fmt: on
    assert config == expected
    assert read_config(small(tie_word_embeddings=False)).tie_embeddings is False


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        (dict(num_key_value_heads=2), "attn_kv_heads", 2),
        (dict(num_key_value_heads=4), "attn_kv_heads", None),
        (dict(num_key_value_heads=None), "attn_kv_heads", None),
        (dict(n_mamba_heads=8, mamba_headdim=...), "headdim", 8),
        (dict(add_bias_linear=True), "proj_bias", True),
        (dict(add_bias_linear=True), "mlp_bias", True),
        (dict(use_shared_attention_adapter=True, adapter_rank=7), "lora_rank_qkv", 7),
        (dict(use_shared_mlp_adapter=False), "lora_rank", 0),
        (dict(hidden_act="gelu_new"), "activation", "gelu_tanh"),
        (dict(use_mem_rope=True, rope_theta=500), "rope_theta", 500.0),
        (dict(use_mem_rope=True, rope_parameters={"rope_theta": 5.0}), "rope_theta", 5.0),
        (dict(use_mem_rope=True, use_long_context=True), "rope_theta", 10000 * 8 ** (16 / 14)),
        (dict(use_mem_rope=True, use_long_context=True), "max_context", 16384),
        (dict(use_mem_rope=False, use_long_context=True), "rope_theta", None),
        (dict(time_step_limit=[0.01, math.inf]), "dt_min", 0.01),
        (dict(time_step_limit=[0.0, "Infinity"]), "dt_min", 0.0),
        (dict(num_mem_blocks=5), "n_shared_blocks", 1),
        (dict(eos_token_id=[3, 4]), "eos_token_id", 3),
        (dict(pad_token_id=None), "pad_token_id", None),
        (dict(zamba_lab={"init": "small", "dt_min": 0.5, "chunk_size": 3}), "dt_min", 0.5),
    ],
)
def test_a_key_and_what_it_means(changes, field, value):
    assert getattr(read_config(small(**changes)), field) == value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(hiden_size=3), r"keys there is no code for: \['hiden_size'\]"),
        (dict(model_type="llama"), "model_type must be one of zamba2, zamba, mamba2, mamba, zamba_lab: got 'llama'"),
        (dict(model_type=...), "model_type must be one of"),
        (dict(hidden_size=...), "must have 'hidden_size'"),
        (dict(hidden_size="32"), "'hidden_size' must be of kind int, got str '32'"),
        (dict(hidden_size=32.0), "'hidden_size' must be of kind int, got float 32.0"),
        (dict(vocab_size=True), "'vocab_size' must be of kind int, got bool True"),
        (dict(vocab_size=10**400), "'vocab_size' must be of kind int, got int that is too large"),
        (dict(vocab_size=0), "vocab_size must be an integer of 1 or more: got 0"),
        (dict(rms_norm_eps=math.nan), "'rms_norm_eps' must be of kind float"),
        (dict(layers_block_type=["mamba", "attention", "mamba"]), r"layers_block_type must hold .*: got \['attention'\]"),
        (dict(layers_block_type=["mamba"] * 4), "num_hidden_layers = 3 layers: it has 4"),
        (dict(layers_block_type=...), "must have 'hybrid_layer_ids'"),
        (dict(hybrid_layer_ids=[2]), r"hybrid_layer_ids is \[2\], but what it follows from gives \[1\]"),
        (dict(n_mamba_heads=3, mamba_headdim=...), "n_mamba_heads must divide mamba_expand \\* hidden_size: got 3, 64"),
        (dict(n_mamba_heads=8), "mamba_headdim is 16, but what it follows from gives 8"),
        (dict(kv_channels=9), "kv_channels is 9, but what it follows from gives 8"),
        (dict(attention_head_dim=32), "attention_head_dim is 32, but what it follows from gives 16"),
        (dict(attention_hidden_size=65), "attention_hidden_size is 65, but what it follows from gives 64"),
        (dict(num_query_groups=3), "num_query_groups is 3, but what it follows from gives 4$"),
        (dict(intermediate_size=64, ffn_hidden_size=65), "ffn_hidden_size is 65, but what it follows from gives 64"),
        (dict(lora_rank=3, adapter_rank=4), "gives adapter_rank in two spellings, as 3 and as 4"),
        (dict(hidden_act="mish"), "hidden_act must be one of gelu, .*: got 'mish'"),
        (dict(rope_scaling={"type": "linear"}), "there is code only for rope_scaling = None"),
        (dict(rope_parameters={"rope_type": "yarn", "rope_theta": 1e4}), "rope_type 'default', got .*yarn"),
        (dict(time_step_limit=[0.001, 0.1]), r"time_step_limit must be null or \[lower, Infinity\]: got \[0.001, 0.1\]"),
        (dict(gated_linear_unit=False), "there is code only for gated_linear_unit = True, got False"),
        (dict(quantization_config={"bits": 4}), "there is code only for quantization_config = None"),
        (dict(num_attention_heads=3), "attn_heads must divide attention's width: got attn_heads = 3"),
        (dict(mamba_ngroups=3), "n_groups must divide ssm_heads"),
        (dict(zamba_lab={"colour": "red"}), r"no field of ZambaConfig: \['colour'\]"),
        (dict(zamba_lab={"rope_theta": 5.0}), r"may only hold what the other keys cannot say, but changes \['rope_theta'\]"),
        (dict(zamba_lab={"init": 3}), "'init' must be of kind str, got int 3"),
        (dict(zamba_lab=[1]), "'zamba_lab' must be of kind dict"),
    ],
)
def test_refused_with_rule_and_values(changes, message):
    with pytest.raises(CheckpointError, match=message):
        read_config(small(**changes))


@pytest.mark.parametrize("name", VARIANTS)
def test_written_and_read_again_is_the_same(name):
    config = VARIANTS[name]
    raw = write_config(config, "float32")
    assert read_config(json.loads(json.dumps(raw))) == config
    assert raw["model_type"] == published_type(config)


def test_other_readers_see_what_we_compute():
    """Without our own key a published config means the same function."""
    for config in VARIANTS.values():
        raw = write_config(replace(config, init="small", dt_min=0.0, chunk_size=9), "float32")
        if raw["model_type"] != "zamba_lab":
            assert meaning(read_config({k: v for k, v in raw.items() if k != "zamba_lab"})) == meaning(config)


def test_the_reference_is_told_to_clamp_where_we_do():
    assert write_config(ZambaConfig(dt_min=0.25), "float32")["time_step_min"] == 0.25
    assert 0 < write_config(ZambaConfig(), "float32")["time_step_min"] < 1e-15


@st.composite
def configs(draw) -> ZambaConfig:
    n_layers = draw(st.integers(1, 5))
    hybrid = draw(st.sets(st.integers(0, n_layers - 1)))
    order = draw(st.none() | st.lists(st.integers(0, 2), min_size=len(hybrid), max_size=len(hybrid)))
    values = dict(
        vocab_size=draw(st.integers(1, 9)),
        d_model=draw(st.sampled_from([4, 8, 12])),
        n_layers=n_layers,
        mixer=draw(st.sampled_from(["mamba2", "mamba1", "attention"])),
        headdim=draw(st.sampled_from([1, 2, 4])),
        d_state=draw(st.integers(1, 4)),
        d_conv=draw(st.integers(1, 4)),
        expand=draw(st.integers(1, 3)),
        n_groups=draw(st.sampled_from([1, 2])),
        dt_rank=draw(st.none() | st.integers(1, 3)),
        chunk_size=draw(st.integers(1, 99)),
        dt_min=draw(st.sampled_from([0.0, 0.001])),
        hybrid_layers=sorted(hybrid),
        n_shared_blocks=draw(st.integers(0, 3)),
        block_order=order,
        concat_embedding=draw(st.booleans()),
        attn_heads=draw(st.sampled_from([1, 2, 4])),
        attn_kv_heads=draw(st.sampled_from([None, 1, 2])),
        attn_head_dim=draw(st.sampled_from([None, 2, 4])),
        rope_theta=draw(st.sampled_from([None, 1e4, 7.5])),
        d_mlp=draw(st.integers(1, 5)),
        activation=draw(st.sampled_from(["gelu", "gelu_tanh", "silu", "relu"])),
        lora_rank=draw(st.integers(0, 2)),
        lora_rank_qkv=draw(st.integers(0, 2)),
        conv_bias=draw(st.booleans()),
        proj_bias=draw(st.booleans()),
        mlp_bias=draw(st.booleans()),
        norm_eps=draw(st.sampled_from([1e-5, 1e-2])),
        tie_embeddings=draw(st.booleans()),
        eos_token_id=draw(st.none() | st.integers(0, 5)),
        init=draw(st.sampled_from(["small", "authors"])),
    )
    try:
        return ZambaConfig(**values)
    except ValueError:
        assume(False)


@given(configs())
def test_any_config_survives_writing_and_reading(config):
    assert read_config(json.loads(json.dumps(write_config(config, "bfloat16")))) == config


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


SEEDS = (*PUBLISHED.values(), *LEGACY.values(), MAMBA, MAMBA_HF, MAMBA2, asdict(VARIANTS["base"]))
OTHER_KEYS = ("rope_parameters", "time_step_limit", "zamba_lab", "model_type", "layers_block_type", "ssm_cfg")


@given(st.sampled_from(SEEDS), st.data())
def test_any_value_under_any_key_is_read_or_refused(raw, data):
    raw = {"model_type": "zamba_lab", **raw} if "lora_rank_qkv" in raw else dict(raw)
    for key in data.draw(st.lists(st.sampled_from([*raw, *OTHER_KEYS]), max_size=3)):
        raw[key] = data.draw(JSON)
    with contextlib.suppress(CheckpointError):
        read_config(raw)


# --- keys that change nothing -------------------------------------------------------------------------------------

HARMLESS = {
    "_attn_implementation_autoset": True,
    "unsloth_version": "2025.1.1",
    "unsloth_fixed": True,
    "max_length": 20,
    "pruned_heads": {},
    "temperature": 1.0,
    "torchscript": False,
    "gradient_checkpointing": False,
    "tie_encoder_decoder": False,
    "prefix": None,
    "id2label": {"0": "LABEL_0"},
}


@pytest.mark.parametrize("model_type", ["zamba2", "zamba", "mamba", "mamba2", "zamba_lab"])
def test_keys_that_change_nothing_are_listed_and_not_refused(model_type):
    config = next(config for config in (*VARIANTS.values(), *fuzzing.SOUND.values()) if published_type(config) == model_type)
    raw = write_config(config, "float32")
    harmless = {
        key: value for key, value in HARMLESS.items() if model_type != "zamba_lab" or key not in ("pruned_heads", "tie_encoder_decoder")
    }
    assert read_config(raw | harmless) == config
    assert set(ignored_keys(raw | harmless)) >= set(harmless) - {"pruned_heads", "tie_encoder_decoder"}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pruned_heads", {"1": [0]}),
        ("tie_encoder_decoder", True),
        ("is_encoder_decoder", True),
        ("logits_scaling", 2.0),
        ("final_logit_softcapping", 30.0),
        ("attention_bias", True),
        ("embedding_multiplier", 12.0),
        ("transformers_weights", "other.safetensors"),
        ("something_new", None),
    ],
)
def test_keys_that_could_change_the_computation_are_refused(key, value):
    raw = write_config(next(config for config in VARIANTS.values() if published_type(config) == "zamba2"), "float32")
    with pytest.raises(CheckpointError, match=key):
        read_config(raw | {key: value})
