"""What a module gives is there for those who look, by a hook or by a forward in its place, where it is not needed otherwise."""

import pytest
import torch
from torch.nn.modules import module as every
from variants import BASE, VARIANTS, make_model, random_ids

from zamba_lab import lens
from zamba_lab.blocks import layers, lora, mixer
from zamba_lab.blocks.linear import Linear
from zamba_lab.blocks.lora import Lora, adapted
from zamba_lab.blocks.watched import watched
from zamba_lab.ops.linear import linear_adapted


@pytest.mark.parametrize("name", ["layers.1.mamba", "layers.1.mamba.out_proj", "layers.2.mamba"])
@torch.inference_mode()
def test_a_mixers_output_is_without_the_stream_for_who_looks(name):
    model, ids = make_model(BASE), random_ids(BASE)
    trace = lens.run(model, ids, keep=["layers.*.mamba.out", "logits"])
    want, seen, module = trace[f"{name.removesuffix('.out_proj')}.out"], [], model.get_submodule(name)
    first = lambda result: result[0] if isinstance(result, tuple) else result
    with module.register_forward_hook(lambda *given: seen.append(first(given[2]))):
        logits = model(ids)
    torch.testing.assert_close(seen.pop(), want)
    torch.testing.assert_close(logits, trace["logits"])
    plain = module.forward
    module.forward = lambda *given, **more: seen.append(plain(*given, **more)) or seen[-1]
    logits = model(ids)
    torch.testing.assert_close(first(seen.pop()), want)
    torch.testing.assert_close(logits, trace["logits"])


@pytest.mark.parametrize("looking", [False, True])
@torch.inference_mode()
def test_the_stream_is_added_in_the_projection_unless_somebody_looks(looking, monkeypatch):
    model, ids, apart = make_model(VARIANTS["pure mamba2"]), random_ids(BASE), []
    monkeypatch.setattr(layers, "plus", lambda a, b: apart.append(a + b) or apart[-1])
    if looking:
        model.layers[1].mamba.register_forward_hook(lambda *given: None)
    model(ids)
    assert len(apart) == looking


@torch.inference_mode()
def test_another_module_in_a_projections_place_needs_to_know_nothing_of_the_stream():
    model, ids = make_model(BASE), random_ids(BASE)
    want = model(ids)
    for layer in model.layers:
        ours = layer.mamba.out_proj
        layer.mamba.out_proj = plain = torch.nn.Linear(ours.in_features, ours.out_features, bias=ours.bias is not None, dtype=want.dtype)
        plain.load_state_dict(ours.state_dict())
    torch.testing.assert_close(model(ids), want)


@pytest.mark.parametrize("part", ["up", "down"])
@torch.inference_mode()
def test_an_adapter_is_seen_and_otherwise_part_of_one_sum(part, monkeypatch):
    model, ids, joined, seen = make_model(BASE), random_ids(BASE), [], []
    monkeypatch.setattr(lora, "linear_adapted", lambda *given: joined.append(given) or linear_adapted(*given))
    half = next(one for name, one in model.named_modules() if name.endswith(f"adapters.mlp.{part}"))
    want, all_of_them = model(ids), len(joined)
    joined.clear()
    with half.register_forward_hook(lambda *given: seen.append(given[2])):
        torch.testing.assert_close(model(ids), want)
    assert len(seen) == 1 and len(joined) == all_of_them - 1


def test_who_looks_is_found_and_lets_go():
    module = torch.nn.Linear(2, 2)
    assert not watched(module, torch.nn.ReLU())
    for register in (
        module.register_forward_hook,
        module.register_forward_pre_hook,
        module.register_full_backward_hook,
        module.register_full_backward_pre_hook,
        every.register_module_forward_hook,
        every.register_module_forward_pre_hook,
        every.register_module_full_backward_hook,
        every.register_module_full_backward_pre_hook,
    ):
        with register(lambda *given: None):
            assert watched(torch.nn.ReLU(), module)
        assert not watched(module)


def a_linear_and_an_adapter(kind=Lora):
    torch.manual_seed(0)
    shared, adapter, x = Linear(64, 512, bias=False), kind(64, 8, 512), torch.randn(64, 64)
    return shared.bfloat16(), torch.nn.ModuleDict({"mlp": adapter.bfloat16()}), x.bfloat16()


@pytest.mark.parametrize("gradients", [True, False])
def test_an_adapters_sum_compiles_whole(gradients):
    shared, adapters, x = a_linear_and_an_adapter()
    with torch.set_grad_enabled(gradients):
        form = torch.compile(lambda x: adapted(shared, adapters, "mlp", x), backend="eager", fullgraph=True)
        torch.testing.assert_close(form(x), shared(x) + adapters["mlp"](x), rtol=2**-6, atol=2**-6)


class Silent(Lora):
    def forward(self, x, add=None):
        return torch.zeros(*x.shape[:-1], 512, dtype=x.dtype) + (0 if add is None else add)


class Halved(mixer.Mixer):
    def forward(self, u, ctx, cache, trace=None):
        return u / 2, None, None


@torch.inference_mode()
def test_adapters_and_mixers_of_other_kinds_compute_what_they_say():
    shared, adapters, x = a_linear_and_an_adapter(Silent)
    assert torch.equal(adapted(shared, adapters, "mlp", x), shared(x))
    model, ids = make_model(BASE), random_ids(BASE)
    seen = []
    for layer in model.layers:
        layer.mamba = Halved()
        layer.mamba.register_forward_hook(lambda *given: seen.append(given[2][0]))
    model(ids)
    assert len(seen) == len(model.layers)
    for layer in model.layers:
        layer.mamba = Halved()
    assert model(ids).isfinite().all()


@pytest.mark.parametrize("half", ["down", "up"])
@torch.inference_mode()
def test_a_bias_given_to_half_an_adapter_counts(half):
    shared, adapters, x = a_linear_and_an_adapter()
    getattr(adapters["mlp"], half).bias = torch.nn.Parameter(torch.ones(getattr(adapters["mlp"], half).out_features).bfloat16())
    want = (shared.double()(x.double()) + adapters["mlp"].double()(x.double())).clone()
    shared.bfloat16(), adapters.bfloat16()
    torch.testing.assert_close(adapted(shared, adapters, "mlp", x).double(), want, rtol=0.03, atol=0.03)
