"""Played tokens are the tokens that the layers would have computed, bit by bit, whatever happened to the model between."""

import copy
import gc
import threading
import weakref
from dataclasses import replace

import pytest
import torch
from torch import nn
from variants import VARIANTS, make_model, random_ids

import zamba_lab as zl
from zamba_lab.blocks import replay
from zamba_lab import native
from zamba_lab.native import direct
from zamba_lab.native.step import norm_step, plus_step
from zamba_lab.native.tape import NotTaped, Tape
from zamba_lab.trace import OFF

pytestmark = pytest.mark.skipif(not native.available(), reason=f"no native kernels: {native.why_not()}")

BASE = VARIANTS["base"]
# variants of ablations only, for whose mixers no native step was written
NOT_NATIVE = {"no convolution", "mamba1, no convolution", "norm over all heads", "norm over each head"}


def small(config=BASE, dtype=torch.float32):
    return make_model(config).to(dtype)


def takes(model):
    return list(replay._TAKES[model].by_kind.values()) if model in replay._TAKES else []


@torch.inference_mode()
def decoded(model, ids, prompt=5, mask=None, walked=False, monkeypatch=None):
    """Logits of each token after the prompt, and the last cache."""
    if walked:
        monkeypatch.setattr("zamba_lab.model.one_token", lambda model, walk, ctx, cache: walk(ctx, cache))
    _, cache = model.extend(ids[:, :prompt], mask=mask)
    logits = []
    for at in range(prompt, ids.shape[1]):
        step, cache = model.extend(ids[:, at : at + 1], cache)
        logits.append(step)
    if walked:
        monkeypatch.undo()
    return torch.cat(logits, 1), cache


def assert_same(one, other):
    assert torch.equal(one[0], other[0])
    for mine, theirs in zip(one[1].layers, other[1].layers):
        assert mine.tensors().keys() == theirs.tensors().keys()
        assert all(torch.equal(t, theirs.tensors()[name]) for name, t in mine.tensors().items())


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_played_equals_walked_and_every_variant_with_native_steps_is_played(name, dtype, monkeypatch):
    model, ids = small(VARIANTS[name], dtype), random_ids(VARIANTS[name], b=2, l=11)
    assert_same(decoded(model, ids), decoded(model, ids, walked=True, monkeypatch=monkeypatch))
    assert takes(model) and (name in NOT_NATIVE or all(takes(model)))


@pytest.mark.parametrize(
    "config",
    [replace(BASE, norm_eps=1), replace(BASE, dt_min=1), replace(BASE, mixer="mamba1", dt_min=1)],
    ids=["norm_eps", "dt_min", "mamba1 dt_min"],
)
@torch.inference_mode()
def test_a_number_given_as_an_int_is_played_as_the_number_it_is(config):
    model, ids = small(config), random_ids(config, b=2, l=11)
    torch.testing.assert_close(decoded(model, ids)[0], model(ids)[:, 5:], rtol=0, atol=1e-4)
    assert takes(model) and all(takes(model))


@pytest.mark.parametrize("prepare", [lambda model: zl.quantize(model, "int8"), lambda model: model], ids=["int8", "padding"])
def test_int8_and_padding_are_played_too(prepare, monkeypatch):
    model, ids = prepare(small()), random_ids(BASE, b=2, l=11)
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]])
    assert_same(decoded(model, ids, mask=mask), decoded(model, ids, mask=mask, walked=True, monkeypatch=monkeypatch))
    assert takes(model) and all(takes(model))


@torch.inference_mode()
def test_an_older_cache_stays_what_it_was():
    model, ids = small(), random_ids(BASE, b=1, l=9)
    _, cache = model.extend(ids[:, :5])
    _, cache = model.extend(ids[:, 5:6], cache)  # recorded
    first, _ = model.extend(ids[:, 6:7], cache)  # played, as all that follows
    branch, _ = model.extend(ids[:, 7:8], cache)
    again, _ = model.extend(ids[:, 6:7], cache)
    assert torch.equal(first, again) and not torch.equal(first, branch)


class Doubled(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x, add=None):
        return self.inner(2 * x) if add is None else self.inner(2 * x) + add


def other_module(model):
    model.layers[1].invocation.link = Doubled(model.layers[1].invocation.link)


def other_weight(model):
    model.layers[0].mamba.out_proj.weight = nn.Parameter(model.layers[0].mamba.out_proj.weight.detach() * 2)


def other_data(model):
    weight = model.layers[0].mamba.out_proj.weight
    weight.data = weight.data * 2


def other_values(model):
    model.layers[0].mamba.out_proj.weight.data.mul_(2)


def other_attribute(model):
    model.layers[0].norm.eps = 0.5


def hooked(model):
    model.layers[1].mamba.register_forward_hook(lambda module, given, result: (2 * result[0], *result[1:]))


def other_forward(model):
    norm = model.layers[0].norm
    norm.forward = lambda x: 2 * type(norm).forward(norm, x)


@pytest.mark.parametrize(
    "change",
    [other_module, other_weight, other_data, other_values, other_attribute, hooked, other_forward],
    ids=lambda change: change.__name__,
)
def test_a_changed_model_is_never_played_as_it_was(change, monkeypatch):
    model, ids = small(), random_ids(BASE, b=1, l=11)
    before = decoded(model, ids)
    change(model)
    after = decoded(model, ids)
    assert not torch.equal(before[0], after[0])
    assert_same(after, decoded(model, ids, walked=True, monkeypatch=monkeypatch))


def test_a_copy_of_a_model_plays_its_own_weights():
    model, ids = small(), random_ids(BASE, b=1, l=9)
    before, _ = decoded(model, ids)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.mul_(1.1)
    assert not torch.equal(decoded(copied, ids)[0], before)
    assert torch.equal(decoded(model, ids)[0], before)


def test_takes_do_not_keep_a_model_alive():
    model = small()
    decoded(model, random_ids(BASE, b=1, l=9))
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_threads_that_decode_with_one_model_do_not_meet():
    model, ids = small(replace(BASE, d_model=64)), random_ids(BASE, b=1, l=60)
    alone, found = decoded(model, ids)[0], []
    threads = [threading.Thread(target=lambda: found.append(decoded(model, ids)[0])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and all(torch.equal(alone, one) for one in found)


@torch.inference_mode()
def test_what_is_not_played_takes_no_room_and_the_tape_is_free_again(monkeypatch):
    model, ids = small(), random_ids(BASE, b=1, l=9)
    _, cache = decoded(model, ids)
    (take,), token = takes(model), ids[:, :1]
    ctx, _ = model._begin(model.embedding(token), None, cache, OFF, 0)
    unfit = replace(cache, layers=(*cache.layers[:4], replace(cache.layers[4], ssm=cache.layers[4].ssm.double())))
    with take.tape.lock:  # as by another thread
        assert take.play(ctx, cache) is None
        walked = model.extend(token, cache.clone())
    assert take.play(ctx, unfit) is None
    assert [layer.room.taken for layer in cache.layers if layer.room] == 3 * [9]
    assert_same(walked, model.extend(token, cache))

    def fails(slots):
        raise MemoryError

    monkeypatch.setattr(take.tape, "play", fails)
    with pytest.raises(MemoryError):
        model.extend(token, cache)
    assert not take.tape.lock.locked()


def test_a_tape_plays_with_other_inputs_and_reads_weights_as_they_are():
    x, weight = torch.randn(2, 8), torch.ones(8)
    with torch.inference_mode(), direct.recorded() as calls:
        y = plus_step(norm_step(x, weight, 1e-5), x)
    tape = Tape(calls, [x], [y], {}, [weight])
    other, result = torch.randn(2, 8), torch.empty(2, 8)
    weight.fill_(3)
    tape.play([other.data_ptr(), result.data_ptr()])
    with torch.inference_mode():
        assert torch.equal(result, plus_step(norm_step(other, weight, 1e-5), other))


@pytest.mark.parametrize("between", [lambda y: y * 2, lambda y: y + 0], ids=["product", "sum"])
def test_a_tape_refuses_calls_with_something_else_between_them(between):
    x, weight = torch.randn(2, 8), torch.ones(8)
    with torch.inference_mode(), direct.recorded() as calls:
        y = between(norm_step(x, weight, 1e-5))
        z = plus_step(y, x)
    with pytest.raises(NotTaped, match="plus_step"):
        Tape(calls, [x], [z], {}, [weight])
    with pytest.raises(NotTaped, match="come out"):
        Tape(calls[:1], [x], [y], {}, [weight])
    with pytest.raises(NotTaped, match="norm_step"):
        Tape(calls[:1], [x], [calls[0][2][-1]], {}, [])
