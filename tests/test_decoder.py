"""The decoder's tokens are `model.extend`'s, and a model that it does not know exactly is decoded by `model.extend`."""

import copy
import threading
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.modules import module as every_module
from variants import VARIANTS, make_model, random_ids

import zamba_lab as zl
from zamba_lab import generation, lens, native
from zamba_lab.decoder import Decoder, serves

pytestmark = pytest.mark.skipif(not native.available(), reason=f"no native kernels: {native.why_not()}")

BASE = VARIANTS["base"]
NOT_SERVED = {"norm over all heads", "norm over each head"}  # of ablations only
PADDED = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 0, 1, 1]])


@torch.inference_mode()
def by_extend(model, ids, mask=None, prompt=5):
    """Logits of each token after the prompt, and the cache after the prompt."""
    _, start = model.extend(ids[:, :prompt], mask=mask)
    cache, logits = start, []
    for token in ids[:, prompt:].split(1, dim=1):
        step, cache = model.extend(token, cache)
        logits.append(step[:, 0])
    return torch.stack(logits, 1), start


@torch.inference_mode()
def by_decoder(model, ids, cache, prompt=5):
    assert serves(model, len(ids))
    decoder = Decoder(model, cache)
    return torch.stack([decoder.step(token).clone() for token in ids[:, prompt:].unbind(1)], 1)


def assert_close(model, ids, mask=None):
    want, cache = by_extend(model, ids, mask)
    torch.testing.assert_close(by_decoder(model, ids, cache), want, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in NOT_SERVED])
@pytest.mark.parametrize("mask", [None, PADDED], ids=["no padding", "padding"])
def test_the_decoders_logits_are_extends(name, mask):
    assert_close(make_model(VARIANTS[name]).float(), random_ids(VARIANTS[name], b=2, l=11), mask)


@pytest.mark.parametrize("name", ["base", "mamba1", "transformer", "lora on qkv", "biases", "untied"])
def test_in_bfloat16_the_decoder_is_as_near_to_float64_as_extend_is(name):
    model, ids = make_model(VARIANTS[name]).to(torch.bfloat16), random_ids(VARIANTS[name], b=2, l=15)
    want, _ = by_extend(copy.deepcopy(model).double(), ids)
    extended, cache = by_extend(model, ids)
    decoded = by_decoder(model, ids, cache)
    assert decoded.dtype == torch.bfloat16
    assert (decoded - want).square().mean() < 1.5**2 * (extended - want).square().mean()


@pytest.mark.parametrize("batch", [1, 3, 8])
@pytest.mark.parametrize("name", ["base", "mamba1", "transformer, grouped queries, no rope"])
def test_every_batch_up_to_eight_rows_is_decoded(name, batch):
    assert_close(make_model(VARIANTS[name]).float(), random_ids(VARIANTS[name], b=batch, l=8))
    assert not serves(make_model(VARIANTS[name]).float(), 9)


@pytest.mark.parametrize("name", ["base", "mamba1", "untied", "biases"])
def test_int8_weights_are_decoded(name):
    assert_close(zl.quantize(make_model(VARIANTS[name]).float(), keep=()), random_ids(VARIANTS[name], b=2, l=9))


@pytest.mark.parametrize("config", [replace(BASE, norm_eps=1), replace(BASE, dt_min=1), replace(BASE, mixer="mamba1", dt_min=1)])
def test_a_number_given_as_an_int_is_the_number_it_is(config):
    assert_close(make_model(config).float(), random_ids(config, b=2, l=8))


@pytest.mark.parametrize("mixer", ["mamba1", "mamba2"])
@pytest.mark.parametrize("stored", [torch.bfloat16, torch.float32], ids=str)
def test_parameters_of_another_dtype_are_read_as_what_they_are(mixer, stored):
    model, ids = make_model(replace(BASE, mixer=mixer)).to(stored), random_ids(BASE, b=2, l=9)
    for layer in model.layers:
        for name in ("A_log", "D", "dt_bias"):
            parameter = getattr(layer.mamba, name)
            parameter.data = parameter.detach().bfloat16().to(torch.float32 if stored == torch.bfloat16 else torch.bfloat16)
    want, cache = by_extend(model, ids)
    torch.testing.assert_close(by_decoder(model, ids, cache), want, rtol=0, atol=1e-4 if stored == torch.float32 else 0.5)


def test_the_cache_a_decoder_starts_from_stays_what_it_was():
    model, ids = make_model(BASE).float(), random_ids(BASE, b=2, l=9)
    _, cache = by_extend(model, ids)
    before = cache.clone()
    first = by_decoder(model, ids, cache)
    for old, now in zip(before.layers, cache.layers):
        assert all(torch.equal(t, now.tensors()[name]) for name, t in old.tensors().items())
    assert torch.equal(by_decoder(model, ids, cache), first)


@pytest.mark.parametrize("mask", [None, PADDED], ids=["no padding", "padding"])
def test_more_tokens_than_there_is_room_for_are_as_good(monkeypatch, mask):
    monkeypatch.setattr("zamba_lab.decoder.ROOM", 3)
    assert_close(make_model(BASE).float(), random_ids(BASE, b=2, l=20), mask)


@torch.inference_mode()
def test_decoders_in_several_threads_do_not_meet():
    model, ids = make_model(BASE).float(), random_ids(BASE, b=1, l=40)
    _, cache = by_extend(model, ids)
    alone, decoded = by_decoder(model, ids, cache), []
    threads = [threading.Thread(target=lambda: decoded.append(by_decoder(model, ids, cache))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(decoded) == 4 and all(torch.equal(alone, one) for one in decoded)


class Doubled(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(2 * x)


class Louder(type(make_model(BASE).layers[0].norm)):
    def forward(self, x):
        return 2 * super().forward(x)


def another_module(model):
    model.layers[1].invocation.link = Doubled(model.layers[1].invocation.link)


def a_subclass(model):
    model.layers[0].norm.__class__ = Louder


def a_hook(model):
    model.layers[1].mamba.register_forward_hook(lambda module, arguments, result: (2 * result[0], *result[1:]))


def a_hook_on_the_model(model):
    model.register_forward_pre_hook(lambda module, arguments: None)


def another_forward(model):
    norm = model.layers[0].norm
    norm.forward = lambda x: 2 * type(norm).forward(norm, x)


def another_walk(model):
    walk = type(model).walk
    model.walk = lambda *arguments, **more: (lambda x, cache: (2 * x, cache))(*walk(model, *arguments, **more))


def float64(model):
    model.double()


def another_dtype_in_one_matrix(model):
    model.layers[1].invocation.link.bfloat16()


@pytest.mark.parametrize(
    "change",
    [another_module, a_subclass, a_hook, a_hook_on_the_model, another_forward, another_walk, float64, another_dtype_in_one_matrix],
    ids=lambda change: change.__name__,
)
@torch.inference_mode()
def test_a_model_that_is_not_known_exactly_is_not_served(change):
    model, ids = make_model(BASE).float(), random_ids(BASE, b=2, l=6)
    assert serves(model, 2)
    change(model)
    assert not serves(model, 2)
    if change is not another_dtype_in_one_matrix:
        logits, cache = model.extend(ids, last_only=True)
        for token in zl.generate(model, ids, 6).unbind(1):
            assert torch.equal(token, logits[:, -1].argmax(-1))
            logits, cache = model.extend(token[:, None], cache)


@torch.inference_mode()
def test_nothing_is_served_where_native_forms_are_off_or_somebody_looks_at_every_module():
    model = make_model(BASE).float()
    with native.off():
        assert not serves(model, 1)
    with every_module.register_module_forward_hook(lambda *arguments: None):
        assert not serves(model, 1)
    with torch.enable_grad():
        assert not serves(model, 1)
    assert serves(model, 1)


def test_an_attribute_that_was_changed_before_decoding_counts():
    model, ids = make_model(BASE).float(), random_ids(BASE, b=1, l=9)
    model.layers[0].norm.eps = 0.5
    assert_close(model, ids)


@pytest.mark.parametrize("name", ["base", "mamba1 one head", "transformer"])
def test_generate_makes_a_decoder_and_its_tokens_are_those_without_one(name, monkeypatch):
    model, ids, made = make_model(VARIANTS[name]).float(), random_ids(VARIANTS[name], b=2, l=7), []
    monkeypatch.setattr(generation, "Decoder", lambda *arguments: made.append(Decoder(*arguments)) or made[-1])
    decoded = zl.generate(model, ids, 12)
    assert len(made) == 1
    monkeypatch.setattr(generation, "serves", lambda *arguments: False)
    assert torch.equal(decoded, zl.generate(model, ids, 12)) and len(made) == 1


def test_an_intervened_model_is_decoded_under_its_interventions(monkeypatch):
    monkeypatch.setattr(generation, "Decoder", lambda *arguments: pytest.fail("a decoder was made"))
    model, ids = make_model(BASE).float(), random_ids(BASE, b=1, l=7)
    changed = lens.intervene(model, lens.zero("invocation", 1))
    ids_so_far = ids
    for token in zl.generate(changed, ids, 6).unbind(1):
        assert torch.equal(token, changed(ids_so_far)[:, -1].argmax(-1))
        ids_so_far = torch.cat([ids_so_far, token[:, None]], 1)


@torch.inference_mode()
def test_a_cache_that_is_not_the_models_or_not_on_the_cpu_is_an_error():
    model, ids = make_model(VARIANTS["base"]).float(), random_ids(VARIANTS["base"])
    cache = model.extend(ids)[1]
    for other in (cache.map(lambda t: t.to("meta")), replace(cache, layers=cache.layers[1:])):
        with pytest.raises(ValueError, match="a decoder goes on from a cache of its model, on the CPU"):
            Decoder(model, other)
    for more in (ids[:, :1], ids[:, :3]):
        with pytest.raises((ValueError, RuntimeError), match="device|must have shape"):
            model.extend(more, cache.map(lambda t: t.to("meta")))
