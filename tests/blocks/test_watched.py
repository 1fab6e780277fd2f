"""What a module gives is there for those who look, by a hook or by a forward in its place, where it is not needed otherwise."""

import pytest
import torch
from variants import BASE, make_model, random_ids

from zamba_lab import lens
from zamba_lab.blocks.watched import watched


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


@torch.inference_mode()
def test_another_module_in_a_projections_place_needs_to_know_nothing_of_the_stream():
    model, ids = make_model(BASE), random_ids(BASE)
    want = model(ids)
    for layer in model.layers:
        ours = layer.mamba.out_proj
        layer.mamba.out_proj = plain = torch.nn.Linear(ours.in_features, ours.out_features, bias=ours.bias is not None, dtype=want.dtype)
        plain.load_state_dict(ours.state_dict())
    torch.testing.assert_close(model(ids), want)


@torch.inference_mode()
def test_an_adapter_is_seen():
    model, ids = make_model(BASE), random_ids(BASE)
    up, seen = next(one for name, one in model.named_modules() if name.endswith("adapters.mlp.up")), []
    with up.register_forward_hook(lambda *given: seen.append(given[2])):
        model(ids)
    assert len(seen) == 1


def test_who_looks_is_found_and_lets_go():
    module = torch.nn.Linear(2, 2)
    assert not watched(module, torch.nn.ReLU())
    for register in (module.register_forward_hook, module.register_forward_pre_hook, module.register_full_backward_hook,
                     module.register_full_backward_pre_hook, torch.nn.modules.module.register_module_forward_hook):
        with register(lambda *given: None):
            assert watched(torch.nn.ReLU(), module)
        assert not watched(module)
