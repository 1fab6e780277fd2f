from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from variants import BASE, PURE, VARIANTS, make_model, random_ids

import zamba_lab as zl
from zamba_lab import native

PUBLISHED = {
    "zamba-7b-v1": 7_232_490_496,
    "zamba2-1.2b": 1_215_064_704,
    "zamba2-2.7b": 2_662_214_560,
    "zamba2-7b": 7_356_749_648,
    "mamba-130m": 129_135_360,
    "mamba2-130m": 128_989_632,
}


@pytest.mark.parametrize("name, count", PUBLISHED.items())
def test_published_shapes_have_the_published_parameter_counts(name, count):
    config = zl.ZambaConfig.preset(name)
    assert config.n_params == count
    with torch.device("meta"):
        assert sum(p.numel() for p in zl.Zamba(config).parameters()) == count


def test_kv_bytes_of_a_token_are_the_published_shapes():
    for name, size in (("zamba2-1.2b", 98_304), ("zamba2-2.7b", 184_320), ("zamba2-7b", 372_736), ("zamba-7b-v1", 386_048)):
        config = zl.ZambaConfig.preset(name)
        grown = config.cache_bytes(101, dtype=torch.bfloat16) - config.cache_bytes(100, dtype=torch.bfloat16)
        assert grown == size


@pytest.mark.parametrize(
    "variant", ["base", "mamba1 one head", "no convolution", "link into the stream", "lora on qkv", "one kv head, wide head", "transformer"]
)
def test_flops_equal_what_torch_counts_plus_the_scan(variant):
    """torch counts matrix products; the step's element-wise state update, read and convolution are added by hand."""
    config, context = VARIANTS[variant], 12
    model, ids = make_model(config), random_ids(config, b=1, l=context)
    with torch.no_grad(), native.off():
        _, cache = model.extend(ids[:, :-1])
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # the fused one is not counted
            model.extend(ids[:, -1:], cache)
    counted = counter.get_total_flops()
    uncounted = 0
    if config.mixer != "attention":
        state = config.d_inner * config.d_state
        # decay and write are element-wise; the read is a product that torch counts, and so is conv1d over its window
        uncounted = config.n_layers * 2 * 2 * state
    assert config.flops_per_token(context) == counted + uncounted


@pytest.mark.skipif(not native.available(), reason=f"no native kernels: {native.why_not()}")
@pytest.mark.parametrize("mixer", ["mamba2", "mamba1"])
def test_flops_of_the_native_kernels_are_those_of_the_formula(mixer):
    config = replace(BASE, mixer=mixer, hybrid_layers=(), n_shared_blocks=0, dt_rank=3)  # of rank 1 torch makes no product
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        make_model(config)(random_ids(config, b=1, l=12))
    assert counter.get_total_flops() == 12 * config.flops_per_token(0)


def test_nothing_is_resolved_behind_a_replace():
    config = replace(BASE, mixer="mamba1", attn_heads=2, d_model=32)
    assert (config.ssm_heads, config.head_dim, config.dt_width, config.d_attn) == (16, 32, 2, 64)


@pytest.mark.parametrize("off", [dict(n_shared_blocks=0), dict(hybrid_layers=())])
def test_no_block_and_no_depth_are_one_switch(off):
    assert replace(BASE, **off) == PURE and PURE.hybrid_layers == () and PURE.n_shared_blocks == 0


def test_block_order_in_its_default_form_is_the_default():
    assert BASE.blocks_by_invocation == (0, 1, 0)
    assert replace(BASE, block_order=(0, 1, 0)) == BASE
    assert replace(BASE, block_order=[0, 0, 1]).blocks_by_invocation == (0, 0, 1)


def test_attention_is_scaled_as_released():
    assert zl.ZambaConfig.preset("zamba2-2.7b").attn_scale == 80**-0.5
    assert VARIANTS["no concat"].attn_scale == 4**-0.5 and VARIANTS["transformer"].attn_scale == 4**-0.5
    assert VARIANTS["one kv head, wide head"].attn_scale == 5**-0.5
    assert VARIANTS["usual attention scale"].attn_scale == pytest.approx(VARIANTS["usual attention scale"].head_dim ** -0.5)


BROKEN = {
    "mixer must be one of mamba2, mamba1, attention: got 'mamba3'": dict(mixer="mamba3"),
    "headdim must divide d_inner: got headdim = 5, d_inner = 32 (expand 2 * d_model 16)": dict(headdim=5),
    "n_groups must divide ssm_heads: got n_groups = 3, ssm_heads = 8": dict(n_groups=3),
    "attn_heads must divide attention's width: got attn_heads = 5, attention's width = 32": dict(attn_heads=5),
    "attn_kv_heads must divide attn_heads: got attn_kv_heads = 3, attn_heads = 4": dict(attn_kv_heads=3),
    "attn_head_dim must be even: got 7": dict(attn_head_dim=7),
    "rope_theta must be above 0, or None for no positions: got 0": dict(rope_theta=0),
    "hybrid_layers must lie in 0..4 (n_layers 5): got (1, 5)": dict(hybrid_layers=(1, 5)),
    "hybrid_layers must increase strictly: got (2, 1)": dict(hybrid_layers=(2, 1)),
    "norm_groups must divide ssm_heads: got norm_groups = 3, ssm_heads = 8": dict(norm_groups=3),
    "link_into must be one of mixer, stream: got 'head'": dict(link_into="head"),
    "attn_gain must be above 0: got 0": dict(attn_gain=0),
    "d_conv must be an integer of 0 or more: got -1": dict(d_conv=-1),
    "got 4 blocks, 3 hybrid_layers (1, 2, 4)": dict(n_shared_blocks=4),
    "block_order names a block for each of the 3 invocations": dict(block_order=(0, 1)),
    "uses each of the 2 blocks 0..1: got (0, 0, 0)": dict(block_order=(0, 0, 0)),
    "with mixer='attention' set n_shared_blocks=0, got 2": dict(mixer="attention"),
    "lora_rank must be an integer of 0 or more: got -1": dict(lora_rank=-1),
    "d_model must be an integer of 1 or more: got 0": dict(d_model=0),
    "n_layers must be an integer of 1 or more: got 2.5": dict(n_layers=2.5),
    "dt_min must be 0 or more: got -0.1": dict(dt_min=-0.1),
    "norm_eps must be above 0: got 0": dict(norm_eps=0),
    "activation must be one of gelu, gelu_tanh, silu, relu: got 'tanh'": dict(activation="tanh"),
    "init must be one of small, matching, authors, reference: got 'zeros'": dict(init="zeros"),
}


@pytest.mark.parametrize("message, change", BROKEN.items())
def test_what_does_not_fit_is_refused_with_the_rule_and_the_values(message, change):
    with pytest.raises(ValueError) as error:
        replace(BASE, **change)
    assert message in str(error.value)


def test_unknown_names_are_refused():
    with pytest.raises(TypeError, match="use_lora"):
        zl.ZambaConfig(use_lora=True)
    with pytest.raises(ValueError, match="no preset 'zamba3'.*zamba2-2.7b"):
        zl.ZambaConfig.preset("zamba3")
