"""With everything that selects held as it was, a mixer is linear, and the logits are the sum of where they came from."""

from dataclasses import replace

import pytest
import torch
from shipped import nano, nano_ids
from torch import Tensor
from torch.nn.functional import silu
from variants import VARIANTS, make_model, random_ids

import zamba_lab as zl
from zamba_lab import lens, native
from zamba_lab.lens.attribution import names_for_frozen_mixer
from zamba_lab.ops.conv import causal_conv

MAMBAS = {name: config for name, config in VARIANTS.items() if config.mixer != "attention" and config.link_into == "mixer"}
CASES = {name: (make_model(config), random_ids(config)) for name, config in MAMBAS.items()} | {"nano": (nano(), nano_ids(2))}
every_mamba = pytest.mark.parametrize("model, ids", CASES.values(), ids=CASES.keys())


def traced(model, ids):
    return lens.run(model, ids, keep=[*names_for_frozen_mixer(model), "*.mamba.projected"])


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
    torch.testing.assert_close(
        one.parts, found.parts.gather(-1, ids.roll(-1, 1)[None, ..., None].expand(len(found.parts), -1, -1, 1))[..., 0], rtol=0, atol=1e-9
    )


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
    model, ids = CASES["base"]  # its last layer is hybrid
    total, direct = (lens.attribution(model, ids, direct=d) for d in (False, True))
    torch.testing.assert_close(
        dict(zip(total.sources, total.parts))["invocation.2"], dict(zip(direct.sources, direct.parts))["invocation.2"], rtol=0, atol=1e-10
    )
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
    mixed, pre = (sum(v[:, j : j + 19] * layer.mamba.conv_weight[:32, j] for j in range(4)) for v in (x, raw))
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


BIASES = ("conv_bias", "in_proj.bias", "out_proj.bias")


def norm_held(x: Tensor, weight: Tensor, eps: float, groups: int = 1) -> Tensor:
    """RMSNorm whose scale is a constant to the gradient."""
    parts = x.unflatten(-1, (groups, -1))
    return (parts * torch.rsqrt(parts.square().mean(-1, keepdim=True) + eps).detach()).flatten(-2) * weight


def conv_silu_held(x: Tensor, weight: Tensor, bias: Tensor | None, state=None, mask=None) -> tuple[Tensor, Tensor]:
    y, state = causal_conv(x, weight, bias, state, mask)
    return y * torch.sigmoid(y).detach(), state


@pytest.fixture
def held(monkeypatch):
    """The model's own forward, the same numbers, in which norms' scales and SiLUs' slopes are constants to the gradient."""
    for mixer in ("mamba1", "mamba2"):
        monkeypatch.setattr(f"zamba_lab.blocks.{mixer}.conv_silu", conv_silu_held)
    monkeypatch.setattr("zamba_lab.blocks.norm.rms_norm", norm_held)
    monkeypatch.setattr("zamba_lab.blocks.mamba2.gated_rms_norm", lambda y, z, *more: norm_held(y * silu(z), *more))
    with native.off():
        yield


@pytest.mark.parametrize(
    "model, ids", [*CASES.values(), (zl.load("zamba1-nano", dtype=torch.float64), nano_ids(2))], ids=[*CASES, "zamba1-nano"]
)
def test_every_total_share_is_the_gradient_along_its_source_and_the_remainder_that_along_the_biases(model, ids, held):
    """Through the model itself, from wherever a source comes in: a later invocation, and what selects, are constants."""
    leaves: dict[str, Tensor] = {}

    def leaf(name: str, value: Tensor) -> Tensor:
        leaves[name] = value.detach().requires_grad_()
        return leaves[name]

    sources = ["embed", *(f"invocation.{k}.link_out" for k in range(model.config.n_invocations))]
    edit = {f"*.mamba.{name}": Tensor.detach for name in ("z", "dt", "B", "C")} | {
        name: lambda value, name=name: leaf(name, value) for name in sources
    }
    with torch.no_grad():
        logits = model(ids)
    spoken = model(ids, trace=zl.Trace(edit=edit))
    torch.testing.assert_close(spoken, logits, rtol=0, atol=1e-10)
    found, of = lens.attribution(model, ids, of=ids.roll(-1, 1)), ids.roll(-1, 1)[..., None]
    biases = [p for name, p in model.named_parameters() if name.endswith(BIASES)]
    for t in (0, 7, 18):
        at = [*(leaves[name] for name in sources), *biases]
        along = torch.autograd.grad(spoken[:, t].gather(-1, of[:, t]).sum(), at, retain_graph=True, materialize_grads=True)
        shares = [(slope * value).sum((1, 2)).detach() for slope, value in zip(along, at[: len(sources)])]
        torch.testing.assert_close(found.parts[:, :, t], torch.stack(shares), rtol=0, atol=1e-9)
        told = sum((slope * value).sum().detach() for slope, value in zip(along[len(sources) :], biases)) + torch.zeros(()).double()
        torch.testing.assert_close(found.remainder[:, t].sum(), told, rtol=0, atol=1e-9)


def test_a_model_without_mixers_and_a_wrong_shape_are_refused():
    with pytest.raises(ValueError, match="mixer='attention'"):
        lens.attribution(make_model(VARIANTS["transformer"]), random_ids(VARIANTS["base"]))
    model, ids = CASES["base"]
    with pytest.raises(ValueError, match=r"got \(2, 18\), ids \(2, 19\)"):
        lens.attribution(model, ids, of=ids[:, 1:])


def test_a_link_that_stays_in_the_stream_is_refused():
    config = VARIANTS["link into the stream"]
    for ask in (
        lambda model, ids: lens.attribution(model, ids),
        lambda model, ids: lens.layer_flow(model, ids, 1),
        lambda model, ids: lens.effect(model, ids, lens.path(0, "z")),
    ):
        with pytest.raises(ValueError, match="enter the stream through a mixer only: it has link_into='stream'"):
            ask(make_model(config), random_ids(config))


@pytest.mark.parametrize("variant", ["base", "mamba1", "biases", "conv of one tap"])
@torch.no_grad()
def test_the_frozen_mixer_and_the_mixers_matrix_are_one_linear_map(variant):
    model, ids = CASES[variant]
    trace = traced(model, ids)
    for depth in (0, 2):
        matrix = lens.mixer_matrix(model, ids, depth)
        through, x = lens.frozen_mixer(model, trace, depth), torch.randn_like(matrix.u)
        scale = matrix.u / (trace[f"layers.{depth}.resid_in"] + trace.values.get(f"layers.{depth}.shared.link_out", 0))
        torch.testing.assert_close(through(x[None])[0], torch.einsum("blosd,bsd->blo", matrix.jacobian(), scale * x))
