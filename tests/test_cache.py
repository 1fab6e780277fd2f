"""A cache is a value: whoever holds one can go on from it, whatever was made of it since."""

import pytest
import torch
from variants import VARIANTS, make_model, random_ids

from zamba_lab.ops import kernels
from zamba_lab.ops.kernels import memory

CACHED = ["base", "mamba1", "one kv head, wide head", "no rope", "transformer, grouped queries, no rope", "pure mamba2"]
with_and_without_gradients = pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad],
                                                     ids=lambda mode: mode.__name__)


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
            _, cache = model.extend(prompt[:, -1:], cache)                      # a token: from here on there is room
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
            logits, caches[row] = model.extend(end[:, t:t + 1], caches[row])
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
    assert copy.nbytes == cache.nbytes and all(layer.room is None for layer in copy.layers)
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
    with torch.no_grad():                                                       # with gradients torch itself refuses
        logits, _ = decode(model, ids[:, 12:], cache)
        torch.testing.assert_close(logits, model(ids)[:, 12:], rtol=0, atol=1e-11)


@pytest.mark.parametrize("look", [lambda t: t, lambda t: t[:, 0], lambda t: t.view(-1), lambda t: t.detach()],
                         ids=["itself", "a slice", "a view", "detached"])
@torch.no_grad()
def test_a_state_that_anybody_looks_at_is_not_written_again(look):
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


@pytest.mark.skipif(not kernels.available(), reason=f"no native kernels: {kernels.why_not()}")
@torch.no_grad()
def test_decoding_goes_round_in_the_same_memory(monkeypatch):
    monkeypatch.setattr(memory, "LEAST", 1)
    monkeypatch.setattr(memory, "_kept", {})
    config = VARIANTS["base"]
    model, ids = make_model(config), random_ids(config)
    _, cache = model.extend(ids[:, :3])
    places = set()
    for token in ids[:, 3:].split(1, dim=1):
        _, cache = model.extend(token, cache)
        places |= {layer.ssm.data_ptr() for layer in cache.layers}
    assert ids.shape[1] > 8 and len(places) <= 2 * config.n_layers


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


@pytest.mark.parametrize("first, then", [(torch.inference_mode, torch.no_grad), (torch.no_grad, torch.inference_mode),
                                         (torch.inference_mode, torch.enable_grad), (torch.no_grad, torch.enable_grad)])
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
            cache = cache.clone()                       # as torch demands of whatever is to have gradients
        logits, cache = model.extend(ids[:, 9:14], cache)
        last, _ = model.extend(ids[:, 14:], cache)
    torch.testing.assert_close(torch.cat([logits, last], 1), want[:, 9:], rtol=0, atol=1e-11)
