"""What rounding a model's matrices to 8 or 4 bits costs and saves, and what it leaves as it was."""

import json
from copy import deepcopy

import pytest
import torch
from variants import BASE, VARIANTS, make_model, random_ids

import zamba_lab as zl
from zamba_lab.config import ZambaConfig
from zamba_lab.quantization import PARTS, STAYS, why_slow
from zamba_lab.quantization.int4 import Int4Embedding, Int4Linear, Int4Matrix, pack, unpack
from zamba_lab.quantization.int8 import Quantised

# widths that groups of 32 divide, and some that none does
WIDE = dict(vocab_size=150, d_model=64, n_layers=2, headdim=16, d_state=8, hybrid_layers=(0, 1), attn_heads=4, d_mlp=96, lora_rank=5)
MODELS = {
    "hybrid": ZambaConfig(**WIDE, lora_rank_qkv=32),
    "untied, biases": ZambaConfig(**WIDE, tie_embeddings=False, proj_bias=True, mlp_bias=True),
    "mamba1": ZambaConfig(**WIDE, mixer="mamba1"),
    "transformer": ZambaConfig(**{**WIDE, "hybrid_layers": ()}, mixer="attention", n_shared_blocks=0),
}
BITS = [(8, 64), (4, 64), (4, 32)]


def distance(one, other):
    return ((one.double() - other.double()).square().mean() / other.double().square().mean()).sqrt().item()


def with_rounded_weights(model, small):
    """The full model with the matrices that the small one stands for."""
    full, state = deepcopy(model), small.state_dict()
    with torch.no_grad():
        for path, module in small.named_modules():
            if isinstance(module, Quantised):
                full.get_submodule(path).weight.copy_(module.matrix(torch.float32))
    assert state
    return full


@pytest.mark.parametrize("bits, group", BITS)
@pytest.mark.parametrize("keep", [(), ("embedding", "head", "adapters"), ("mixers", "links")])
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_it_computes_what_the_rounded_weights_compute_in_every_form_of_a_pass(name, keep, bits, group):
    config = MODELS[name]
    model, ids = make_model(config).float(), random_ids(config)
    small = zl.quantize(deepcopy(model), bits, group, keep)
    want = with_rounded_weights(model, small)(ids)
    logits, cache = small.extend(ids[:, :11])
    stepped, _ = small.extend(ids[:, 11:12], cache)
    for got, part in ((small(ids), want), (logits, want[:, :11]), (stepped, want[:, 11:12])):
        torch.testing.assert_close(got, part, rtol=0, atol=1e-3)
    assert zl.generate(small, ids, 3).shape == (2, 3)


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_the_packed_kernel_computes_what_the_rounded_weights_compute(name):
    """In bfloat16 a few rows go through torch's kernel and many through the matrix: the same numbers, to bfloat16."""
    config = MODELS[name]
    small = zl.quantize(make_model(config).bfloat16(), 4, 32, ())
    assert why_slow(small) is None
    for module in small.modules():
        if isinstance(module, Int4Matrix):
            x = torch.randn(40, module.width).bfloat16()
            want = x.double() @ module.matrix(torch.float64).T
            assert distance(module.product(x[:3]), want[:3]) < 5e-3 and distance(module.product(x), want) < 5e-3
    assert zl.generate(small, random_ids(config), 3).shape == (2, 3)


@pytest.mark.parametrize("bits, group", BITS)
@pytest.mark.parametrize("name", [*MODELS, "base"])
@torch.no_grad()
def test_its_bytes_are_those_predicted(name, bits, group):
    config = MODELS.get(name, BASE)
    for keep in ((), ("embedding", "head", "adapters"), PARTS):
        small = zl.quantize(zl.Zamba(config).bfloat16(), bits, group, keep)
        held = sum(t.nbytes for t in (*small.parameters(), *small.buffers()))
        assert held == zl.cost(config, bits=bits, group_size=group, keep=keep).weight_bytes


@pytest.mark.parametrize(
    "name, options, most", [("zamba2-1.2b", dict(keep=()), 700e6), ("zamba2-1.2b", {}, 830e6), ("zamba2-2.7b", {}, 1.7e9)]
)
def test_published_shapes_at_four_bits(name, options, most):
    with torch.device("meta"):
        model = zl.quantize(zl.Zamba(ZambaConfig.preset(name)).bfloat16(), 4, **options)
    held = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    assert held == zl.cost(name, bits=4, **options).weight_bytes < most


def test_no_four_bit_weight_moves_by_more_than_half_a_scale():
    weight = torch.randn(70, 96)
    module = Int4Linear(weight, None, 32)
    q, scale = module.q(), module.scale_bits.view(torch.bfloat16)[:, :70, 0].float()
    assert q.shape == (70, 96) and q.max() == 15 and q.min() == 0
    moved = (module.matrix(torch.float32) - weight).abs().view(70, 3, 32)
    # half a scale, and what rounding scale and offset to bfloat16 adds: 2^-8 of the group's greatest weight, twice
    assert (moved <= 0.5 * scale.T[..., None] + 2**-7 * weight.abs().view(70, 3, 32).amax(2, keepdim=True) + 1e-6).all()
    assert Int4Linear(torch.zeros(3, 32), None, 32).matrix(torch.float32).abs().max() < 1e-6


@pytest.mark.parametrize("rows, width", [(64, 32), (70, 96), (1, 64), (200, 160)])
def test_what_is_packed_for_this_processor_is_unpacked_again(rows, width):
    q = torch.randint(0, 16, (rows, width), dtype=torch.uint8)
    assert torch.equal(unpack(pack(q))[:rows], q)
    rounded = Int4Embedding(torch.randn(rows, width), 32)
    ids = torch.randint(0, rows, (2, 5))
    assert torch.equal(rounded(ids), rounded.matrix(torch.float32)[ids])


@torch.no_grad()
def test_nano_keeps_its_logits():
    ids = torch.randint(5, 2048, (1, 64), generator=torch.Generator().manual_seed(0))
    full = zl.load("zamba2-nano")
    before, size = full(ids), sum(t.nbytes for t in full.state_dict().values())
    for bits, keep, most, share in ((8, (), 0.03, 0.3), (8, ("embedding",), 0.03, 0.5), (4, ("embedding", "head", "adapters"), 0.1, 0.5)):
        small = zl.quantize(zl.load("zamba2-nano"), bits, keep=keep)
        assert distance(small(ids), before) < most
        assert sum(t.nbytes for t in small.state_dict().values()) < share * size


def test_smaller_groups_are_nearer_to_the_weights():
    weight = torch.randn(64, 256)
    far = [distance(Int4Linear(weight, None, group).matrix(torch.float32), weight) for group in (32, 64, 128, 256)]
    assert far == sorted(far) and far[0] < 0.8 * far[-1]


@torch.no_grad()
def test_moving_it_to_another_type_changes_no_weight():
    for bits in (8, 4):
        model, ids = zl.quantize(make_model(MODELS["hybrid"]).float(), bits, keep=()), random_ids(BASE)
        before = {name: t.clone() for name, t in model.state_dict().items() if name.rsplit(".")[-1] in ("values", "packed", "scale_bits")}
        assert model.to(torch.bfloat16)(ids).dtype == torch.bfloat16 and before
        assert all(torch.equal(t, model.state_dict()[name]) for name, t in before.items())


def test_gradients_of_the_input_pass_through_it():
    model = zl.quantize(make_model(MODELS["hybrid"]).bfloat16(), 4, 32, ())
    x = torch.randn(1, 2, 64, dtype=torch.bfloat16, requires_grad=True)
    layer = model.layers[0].mamba.in_proj
    layer(x).sum().backward()
    torch.testing.assert_close(x.grad, layer.matrix(torch.bfloat16).sum(0).expand(1, 2, -1), rtol=0.02, atol=0.02)


# --- on the disk --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits, group", BITS)
@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_it_is_saved_and_loaded_bit_for_bit(name, bits, group, tmp_path):
    config = MODELS[name]
    model, ids = zl.quantize(make_model(config).bfloat16(), bits, group, keep=("links",)), random_ids(config)
    again = zl.load(zl.save(model, tmp_path / "small"))
    assert again.config == config and again.quantization == model.quantization
    assert again.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(t, again.state_dict()[key]) for key, t in model.state_dict().items())
    assert torch.equal(again(ids), model(ids))
    assert zl.load(tmp_path / "small", dtype=torch.float32)(ids).dtype == torch.float32
    assert zl.load(tmp_path / "small", device="meta").config == config


def test_a_file_that_does_not_fit_is_refused(tmp_path):
    folder = zl.save(zl.quantize(make_model(MODELS["hybrid"]).bfloat16(), 4), tmp_path / "small")
    raw = json.loads((folder / "config.json").read_text())

    def refused(message, **changes):
        (folder / "config.json").write_text(json.dumps(raw | {"quantization_config": raw["quantization_config"] | changes}))
        with pytest.raises(zl.CheckpointError, match=message):
            zl.load(folder)

    refused("quantised by 'bitsandbytes', which is not read here", quant_method="bitsandbytes")
    refused("does not say how the weights are quantised: bits must be 8 or 4", bits=3)
    refused("do not fit config.json: .*scale_bits is", group_size=32)
    refused("do not fit config.json", keep=[])


def test_the_doctor_reads_it_and_names_what_does_not_fit(tmp_path):
    folder = zl.save(zl.quantize(make_model(MODELS["hybrid"]).bfloat16(), 4), tmp_path / "small")
    report = zl.doctor(folder)
    assert report.ok and any("quantised, bits 4, group_size 64" in remark for remark in report.remarks), report
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | {"quantization_config": raw["quantization_config"] | {"group_size": 32}}))
    assert [fault["fault"] for fault in zl.doctor(folder).faults] == ["files"]


def test_a_name_a_number_or_a_second_rounding_is_refused():
    model = make_model(BASE)
    with pytest.raises(ValueError, match=r"bits must be 8 or 4 and group_size one of 256, 128, 64, 32: got 'int8' and 64"):
        zl.quantize(model, "int8")
    with pytest.raises(ValueError, match="got 4 and 48"):
        zl.quantize(model, 4, 48)
    with pytest.raises(ValueError, match="keep names parts of embedding, .*: got 'norms'"):
        zl.quantize(model, keep=("norms",))
    with pytest.raises(ValueError, match="quantised already, to 8 bits"):
        zl.quantize(zl.quantize(model))


@pytest.mark.parametrize("name", VARIANTS)
def test_what_stays_is_in_the_table(name):
    model = zl.quantize(make_model(VARIANTS[name]).float())
    stays = {path for path, _ in model.named_parameters()}
    unnamed = [path for path in stays if not any(f"{word}" in path.split(".")[-1] or word in path for word in STAYS)]
    assert not unnamed


def test_a_model_that_gains_no_speed_says_why():
    assert "fast in bfloat16 only" in why_slow(zl.quantize(make_model(MODELS["hybrid"]).float(), 4))
    assert why_slow(zl.quantize(make_model(MODELS["hybrid"]).float(), 8)) is None and why_slow(make_model(BASE)) is None
