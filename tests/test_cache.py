"""A cache is a value: whoever holds one can go on from it, whatever was made of it since."""

from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from variants import VARIANTS, make_model, random_ids

from zamba_lab import native
from zamba_lab.cache import LayerCache
from zamba_lab.ops.conv import conv_silu

CACHED = ["base", "mamba1", "one kv head, wide head", "no rope", "transformer, grouped queries, no rope", "pure mamba2"]
with_and_without_gradients = pytest.mark.parametrize(
    "mode", [torch.no_grad, torch.inference_mode, torch.enable_grad], ids=lambda mode: mode.__name__
)


def decode(model, ids, cache):
    steps = []
    for token in ids.split(1, dim=1):
        logits, cache = model.extend(token, cache)
        steps.append(logits)
    return torch.cat(steps, dim=1), cache


def prompt_and_two_ends(config):
    return random_ids(config, l=9), random_ids(config, l=5, seed=2), random_ids(config, l=5, seed=3)


@with_and_without_gradients
@pytest.mark.parametrize("variant", CACHED)
def test_two_continuations_of_one_cache_do_not_meet(variant, mode):
    model = make_model(VARIANTS[variant])
    prompt, one, other = prompt_and_two_ends(VARIANTS[variant])
    with mode():
        want = {id(end): model(torch.cat([prompt, end], dim=1))[:, 9:] for end in (one, other)}
        for first, second in ((one, other), (other, one)):
            _, cache = model.extend(prompt[:, :-1])
            _, cache = model.extend(prompt[:, -1:], cache)  # a token: from here on there is room
            (a, after), (b, _) = decode(model, first, cache), decode(model, second, cache)
            again, _ = decode(model, second, cache)
            for got, end in ((a, first), (b, second), (again, second)):
                torch.testing.assert_close(got, want[id(end)], rtol=0, atol=1e-11)
            more, _ = decode(model, second, after)
            whole = model(torch.cat([prompt, first, second], dim=1))[:, 14:]
            torch.testing.assert_close(more, whole, rtol=0, atol=1e-11)


@torch.no_grad()
def test_continuations_taken_in_turns_do_not_meet():
    config = VARIANTS["base"]
    model, (prompt, one, other) = make_model(config), prompt_and_two_ends(config)
    _, cache = model.extend(prompt)
    caches, steps = [cache, cache, cache], [[], [], []]
    for t in range(5):
        for row, end in enumerate((one, other, one)):
            logits, caches[row] = model.extend(end[:, t : t + 1], caches[row])
            steps[row].append(logits)
    for got, end in zip(steps, (one, other, one)):
        want = model(torch.cat([prompt, end], dim=1))[:, 9:]
        torch.testing.assert_close(torch.cat(got, dim=1), want, rtol=0, atol=1e-11)


@torch.no_grad()
def test_a_cache_extended_by_a_token_holds_the_bytes_it_says_and_a_clone_shares_none():
    config = VARIANTS["base"]
    model, ids = make_model(config), random_ids(config)
    _, cache = decode(model, ids, None)
    assert cache.nbytes == config.cache_bytes(19, batch=2, dtype=torch.float64)
    copy = cache.clone()
    assert copy.nbytes == cache.nbytes and all(layer.buffer is None for layer in copy.layers)
    logits, _ = model.extend(ids[:, :1], cache)
    for layer in cache.layers:
        for t in layer.tensors().values():
            t.zero_()
    torch.testing.assert_close(model.extend(ids[:, :1], copy)[0], logits, rtol=0, atol=0)


@torch.no_grad()
def test_one_row_of_a_cache_with_room_goes_on_alone():
    config = VARIANTS["base"]
    model, ids = make_model(config), random_ids(config)
    _, cache = decode(model, ids[:, :12], None)
    row = cache.map(lambda t: t[1:])
    alone, _ = decode(model, ids[1:, 12:], row)
    together, _ = decode(model, ids[:, 12:], cache)
    torch.testing.assert_close(alone, together[1:], rtol=0, atol=1e-11)


@torch.no_grad()
def test_tokens_beyond_the_room_are_as_good():
    config = VARIANTS["base"]
    model, ids = make_model(config), random_ids(config, l=150)
    torch.testing.assert_close(decode(model, ids, None)[0], model(ids), rtol=0, atol=1e-11)


def test_a_cache_of_inference_mode_serves_outside_of_it():
    config = VARIANTS["base"]
    model, ids = make_model(config), random_ids(config)
    with torch.inference_mode():
        _, cache = decode(model, ids[:, :12], None)
    with torch.no_grad():  # with gradients torch itself refuses
        logits, _ = decode(model, ids[:, 12:], cache)
        torch.testing.assert_close(logits, model(ids)[:, 12:], rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    "look", [lambda t: t, lambda t: t[:, 0], lambda t: t.view(-1), lambda t: t.detach()], ids=["itself", "a slice", "a view", "detached"]
)
@torch.no_grad()
def test_a_state_that_anybody_holds_is_not_written_again(look):
    config = VARIANTS["base"]
    model, ids = make_model(config), random_ids(config)
    _, cache = decode(model, ids[:, :4], None)
    seen = [look(layer.ssm) for layer in cache.layers]
    before = [t.clone() for t in seen]
    del cache
    _, cache = model.extend(ids[:, :3])
    for token in ids[:, 3:].split(1, dim=1):
        _, cache = model.extend(token, cache)
        seen.append(look(cache.layers[0].ssm))
        before.append(seen[-1].clone())
    assert all(torch.equal(t, old) for t, old in zip(seen, before))


@torch.no_grad()
def test_a_prompt_in_pieces_is_appended_in_place(monkeypatch):
    """So its workspace does not grow with its keys and values: they are written once, to where they stay."""
    monkeypatch.setattr("zamba_lab.model.PREFILL", 4)
    config = VARIANTS["base"]
    model, ids = make_model(config), random_ids(config, l=19)
    logits, cache = model.extend(ids, last_only=True)
    torch.testing.assert_close(logits, model(ids)[:, -1:], rtol=0, atol=1e-11)
    places = [layer.k.data_ptr() for layer in cache.layers if layer.k is not None]
    _, longer = model.extend(random_ids(config, l=7, seed=2), cache)
    assert [layer.k.data_ptr() for layer in longer.layers if layer.k is not None] == places
    assert all(layer.k.shape[2] == 26 for layer in longer.layers if layer.k is not None)


@pytest.mark.parametrize(
    "first, then",
    [
        (torch.inference_mode, torch.no_grad),
        (torch.no_grad, torch.inference_mode),
        (torch.inference_mode, torch.enable_grad),
        (torch.no_grad, torch.enable_grad),
    ],
)
def test_a_cache_goes_on_in_another_mode_than_it_was_made_in(first, then):
    config = VARIANTS["base"]
    model, ids = make_model(config), random_ids(config, l=19)
    with torch.no_grad():
        want = model(ids)
    with first():
        _, cache = model.extend(ids[:, :5])
        _, cache = model.extend(ids[:, 5:6], cache)
        _, cache = model.extend(ids[:, 6:9], cache)
    with then():
        if then is torch.enable_grad and first is torch.inference_mode:
            cache = cache.clone()  # as torch demands of whatever is to have gradients
        logits, cache = model.extend(ids[:, 9:14], cache)
        last, _ = model.extend(ids[:, 14:], cache)
    torch.testing.assert_close(torch.cat([logits, last], 1), want[:, 9:], rtol=0, atol=1e-11)


def converted(cache, dtype):
    """The cache in the types that a model of dtype keeps, by hand."""
    wide = torch.promote_types(dtype, torch.float32)
    layers = [LayerCache(**{name: t.to(wide if name == "ssm" else dtype) for name, t in layer.tensors().items()}) for layer in cache.layers]
    return replace(cache, layers=tuple(layers))


@pytest.mark.parametrize("variant", CACHED)
@pytest.mark.parametrize("with_native", [True, False], ids=["native", "pure"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad], ids=lambda mode: mode.__name__)
@pytest.mark.parametrize(
    "was, now", [(torch.float32, torch.bfloat16), (torch.bfloat16, torch.float32), (torch.float64, torch.float32)], ids=str
)
def test_a_cache_of_another_type_goes_on_as_if_it_had_been_converted(variant, with_native, mode, was, now):
    model, ids = make_model(VARIANTS[variant]), random_ids(VARIANTS[variant])
    with mode(), nullcontext() if with_native else native.off():
        _, cache = decode(model.to(was), ids[:, :7], None)
        given = cache.map(lambda t: t.to(was))  # states too
        for lengths in ([1, 1, 1], [3, 1, 1]):
            runs = []
            for cache in (given, converted(given, now)):
                steps = []
                for token in ids[:, 7 : 7 + sum(lengths)].split(lengths, dim=1):
                    logits, cache = model.to(now).extend(token, cache)
                    steps.append(logits)
                runs.append((torch.cat(steps, dim=1), cache))
            assert torch.equal(runs[0][0], runs[1][0]) and runs[0][0].isfinite().all()
            for mine, other in zip(runs[0][1].layers, runs[1][1].layers):
                assert all(torch.equal(t, other.tensors()[name]) for name, t in mine.tensors().items())


OTHER_SIZES = {
    "state": (dict(d_state=12), "(SSM|conv) state .* got"),
    "heads of the state": (dict(headdim=8), "SSM state .* got"),
    "fewer taps": (dict(d_conv=2), "conv state .* got"),
    "more taps": (dict(d_conv=6), "conv state .* got"),
    "heads": (dict(attn_kv_heads=2), r"keys and values .* = \(2, 4, 9, 8\).* got \(2, 2, 9, 8\)"),
    "head width": (dict(attn_head_dim=6), r"keys and values .* got \(2, 4, 9, 6\)"),
}


@pytest.mark.parametrize("changes, message", OTHER_SIZES.values(), ids=OTHER_SIZES.keys())
@pytest.mark.parametrize("mixer", ["mamba1", "mamba2"])
@pytest.mark.parametrize("with_native", [True, False], ids=["native", "pure"])
@with_and_without_gradients
def test_a_cache_of_another_models_sizes_is_refused(mixer, changes, message, with_native, mode):
    config = replace(VARIANTS["base"], mixer=mixer)
    model, other, ids = make_model(config), make_model(replace(config, **changes)), random_ids(config)
    with mode(), nullcontext() if with_native else native.off():
        _, cache = other.extend(ids[:, :9])
        for end in (10, 14):
            with pytest.raises(ValueError, match=message):
                model.extend(ids[:, 9:end], cache)


@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 3, 6), (2, 2, 6)])
def test_the_convolution_refuses_a_state_of_another_size(shape):
    with pytest.raises(ValueError, match=r"conv state .* \(2, 3, 6\).* got"):
        conv_silu(torch.ones(2, 4, 6), torch.ones(6, 4), None, torch.ones(shape))


@pytest.mark.parametrize("edit", [lambda t: 2 * t, lambda t: t.flip(0)], ids=["other values", "other order"])
@pytest.mark.parametrize("names", [("k",), ("v",), ("k", "v")], ids=str)
@pytest.mark.parametrize("variant", ["base", "transformer, grouped queries, no rope"])
@torch.no_grad()
def test_keys_and_values_put_in_the_place_of_others_are_the_ones_that_count(variant, names, edit):
    model, ids = make_model(VARIANTS[variant]), random_ids(VARIANTS[variant])
    _, cache = decode(model, ids[:, :8], None)  # with room, recorded and played
    layers = [replace(layer, **{name: edit(getattr(layer, name)) for name in names if layer.k is not None}) for layer in cache.layers]
    edited = replace(cache, layers=tuple(layers))
    alone = replace(cache, layers=tuple(replace(layer, buffer=None) for layer in layers))
    assert any(layer.buffer for layer in layers)
    for lengths in ([1, 1, 4], [5, 1]):
        runs = []
        for one in (edited, alone):
            steps = []
            for tokens in ids[:, 8 : 8 + sum(lengths)].split(lengths, dim=1):
                logits, one = model.extend(tokens, one)
                steps.append(logits)
            runs.append(torch.cat(steps, dim=1))
        assert torch.equal(*runs)
