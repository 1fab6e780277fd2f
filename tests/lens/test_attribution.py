"""With everything that selects held as it was, a mixer is linear, and the logits are the sum of where they came from."""

from dataclasses import replace

import pytest
import torch
from shipped import nano, nano_ids
from variants import VARIANTS, make_model, random_ids

from zamba_lab import lens
from zamba_lab.lens.attribution import KEEP

MAMBAS = {name: config for name, config in VARIANTS.items() if config.mixer != "attention"}
CASES = {name: (make_model(config), random_ids(config)) for name, config in MAMBAS.items()} | {"nano": (nano(), nano_ids(2))}
every_mamba = pytest.mark.parametrize("model, ids", CASES.values(), ids=CASES.keys())


def traced(model, ids):
    return lens.run(model, ids, keep=[*KEEP, "embed"] + ["invocation.*.link_out"] * bool(model.config.n_invocations))


def without_biases(model):
    """The model with every bias of its mixers at 0."""
    for layer in model.layers:
        for bias in (layer.mamba.conv_bias, layer.mamba.in_proj.bias, layer.mamba.out_proj.bias):
            if bias is not None:
                bias.data.zero_()
    return model


@every_mamba
@pytest.mark.parametrize("direct", [False, True], ids=["total", "direct"])
def test_contributions_and_remainder_sum_to_the_logits(model, ids, direct):
    found = lens.attribution(model, ids, direct=direct)
    with torch.no_grad():
        logits = model(ids)
    torch.testing.assert_close(found.parts.sum(0) + found.remainder, logits, rtol=0, atol=1e-9)
    assert len(found.sources) == len(found.parts) == 1 + model.config.n_invocations + direct * model.config.n_layers
    one = lens.attribution(model, ids, of=ids.roll(-1, 1), direct=direct)
    torch.testing.assert_close(one.parts, found.parts.gather(-1, ids.roll(-1, 1)[None, ..., None].expand(
        len(found.parts), -1, -1, 1))[..., 0], rtol=0, atol=1e-9)


@pytest.mark.parametrize("config", MAMBAS.values(), ids=MAMBAS.keys())
@pytest.mark.parametrize("direct", [False, True], ids=["total", "direct"])
def test_without_biases_nothing_remains_and_with_them_it_is_they(config, direct):
    model, ids = make_model(config), random_ids(config)
    biased = any(name.endswith(("conv_bias", "proj.bias")) for name, _ in model.named_parameters())
    assert bool(lens.attribution(model, ids, direct=direct).remainder.abs().max() > 1e-6) == biased
    assert lens.attribution(without_biases(model), ids, direct=direct).remainder.abs().max() < 1e-10


@pytest.mark.parametrize("variant", ["base", "mamba1", "conv of one tap", "silu, expand 3, one group", "dt clamp"])
@torch.no_grad()
def test_a_frozen_mixer_reproduces_its_own_output_and_is_linear_and_causal(variant):
    model, ids = without_biases(make_model(MAMBAS[variant])), random_ids(MAMBAS[variant])
    trace = traced(model, ids)
    for depth in (0, 1, 4):
        through = lens.frozen_mixer(model, trace, depth)
        x, link = trace[f"layers.{depth}.resid_in"], f"layers.{depth}.shared.link_out"
        t = trace[link] if link in trace else torch.zeros_like(x)
        torch.testing.assert_close(through((x + t)[None])[0], trace[f"layers.{depth}.mamba.out"], rtol=0, atol=1e-11)
        both = through(torch.stack([x, t, 2 * x - 3 * t]))
        torch.testing.assert_close(both[2], 2 * both[0] - 3 * both[1], rtol=0, atol=1e-10)
        late = torch.cat([torch.zeros_like(x[:, :9]), x[:, 9:]], dim=1)
        assert through(late[None])[0, :, :9].abs().max() == 0


@every_mamba
@torch.no_grad()
def test_a_silenced_invocation_has_no_share_and_a_speaking_one_has(model, ids):
    n = model.config.n_invocations
    if not n:
        pytest.skip("no shared block")
    parts = lens.attribution(lens.intervene(model, lens.zero("invocation", n - 1)), ids, direct=True)
    found = dict(zip(parts.sources, parts.parts))
    assert found[f"invocation.{n - 1}"].abs().max() == 0
    assert n == 1 or found["invocation.0"].abs().max() > 1e-6


@torch.no_grad()
def test_the_direct_share_of_the_last_invocation_is_its_total_share():
    """Behind the last layer there is no other path."""
    model, ids = CASES["base"]                                         # its last layer is hybrid
    total, direct = (lens.attribution(model, ids, direct=d) for d in (False, True))
    torch.testing.assert_close(dict(zip(total.sources, total.parts))["invocation.2"],
                               dict(zip(direct.sources, direct.parts))["invocation.2"], rtol=0, atol=1e-10)
    assert not torch.allclose(total.parts[1], dict(zip(direct.sources, direct.parts))["invocation.0"])


def test_a_share_is_the_gradient_along_a_source_where_nothing_selects():
    """Of the last layer's t, through the model itself: its gate, steps, B, C, slopes and norms are held by hand."""
    config = replace(VARIANTS["base"], norm_eps=1e-5)
    model, ids = without_biases(make_model(config)), random_ids(config)
    held = lens.run(model, ids, keep=["layers.4.*"])
    u, t = held["layers.4.resid_in"], held["layers.4.shared.link_out"]
    layer = model.layers[4]
    scale = torch.rsqrt((u + t).square().mean(-1, keepdim=True) + 1e-5) * layer.norm.weight
    x = torch.nn.functional.pad((scale * t) @ layer.mamba.in_proj.weight[32:64].T, (0, 0, 3, 0))
    raw = torch.nn.functional.pad(held["layers.4.mamba.projected"][..., 32:64], (0, 0, 3, 0))
    mixed, pre = (sum(v[:, j:j + 19] * layer.mamba.conv_weight[:32, j] for j in range(4)) for v in (x, raw))
    x = (mixed * torch.sigmoid(pre)).view(2, 19, 8, 4)
    dt, B, C = (held[f"layers.4.mamba.{name}"] for name in ("dt", "B", "C"))
    state, ys = torch.zeros(2, 8, 4, 6, dtype=torch.float64), []
    for i in range(19):
        decay = torch.exp(-dt[:, i] * torch.exp(layer.mamba.A_log))[..., None, None]
        state = decay * state + (dt[:, i, :, None] * x[:, i])[..., None] * B[:, i].repeat_interleave(4, 1)[:, :, None]
        ys.append((state * C[:, i].repeat_interleave(4, 1)[:, :, None]).sum(-1) + layer.mamba.D[:, None] * x[:, i])
    gate = torch.nn.functional.silu(held["layers.4.mamba.z"])
    gated = (held["layers.4.mamba.y"].flatten(2) * gate).unflatten(-1, (2, 16))
    norm = torch.rsqrt(gated.square().mean(-1, keepdim=True) + 1e-5).expand_as(gated).flatten(2) * layer.mamba.norm_weight
    out = (torch.stack(ys, 1).flatten(2) * gate * norm) @ layer.mamba.out_proj.weight.T
    end = held["layers.4.resid_out"]
    out = out * torch.rsqrt(end.square().mean(-1, keepdim=True) + 1e-5) * model.final_norm.weight
    torch.testing.assert_close(lens.attribution(model, ids).parts[3], (out @ model.embedding.weight.T).detach())


def test_a_model_without_mixers_and_a_wrong_shape_are_refused():
    with pytest.raises(ValueError, match="mixer='attention'"):
        lens.attribution(make_model(VARIANTS["transformer"]), random_ids(VARIANTS["base"]))
    model, ids = CASES["base"]
    with pytest.raises(ValueError, match=r"got \(2, 18\), ids \(2, 19\)"):
        lens.attribution(model, ids, of=ids[:, 1:])
