"""A prefix read once serves every prompt that begins with it, and the meter says what that saved."""

import pytest
import torch
from variants import VARIANTS, make_model, random_ids

import zamba_lab as zl

BASE = VARIANTS["base"]


def prompts_after(prefix, n, l=6):
    return [torch.cat([prefix, random_ids(BASE, 1, l, seed)], dim=1) for seed in range(n)]


@pytest.mark.parametrize("name", ["base", "mamba1", "transformer"])
def test_generation_from_the_store_is_generation_from_the_whole_prompt(name):
    model, prefix = make_model(VARIANTS[name]), random_ids(BASE, 1, 40, seed=50)
    store = zl.PrefixStore(model, least=8)
    for ids in (*prompts_after(prefix, 4), prefix, prefix[:, :20], torch.cat([prefix] * 3)):
        rest, cache = store.split(ids)
        assert rest.shape[1] >= 1 and (0 if cache is None else cache.length) + rest.shape[1] == ids.shape[1]
        assert torch.equal(zl.generate(model, rest, 5, cache=cache), zl.generate(model, ids, 5))
        with torch.no_grad():
            torch.testing.assert_close(model.extend(rest, cache)[0][:, -1], model(ids)[:, -1], rtol=0, atol=1e-11)


def test_the_meter_counts_what_went_through_the_model(monkeypatch):
    model, prefix, through = make_model(BASE), random_ids(BASE, 1, 40, seed=50), 0
    store, walk = zl.PrefixStore(model, least=8), model.walk

    def counted(ids, *others, **options):
        nonlocal through
        through += ids.numel()
        return walk(ids, *others, **options)

    monkeypatch.setattr(model, "walk", counted)
    prompts = [*prompts_after(prefix, 4), torch.cat([*prompts_after(prefix, 2)])]
    for ids in prompts:
        rest, cache = store.split(ids)
        with torch.no_grad():
            model.extend(rest, cache)
    meter = store.meter
    assert meter.tokens == sum(ids.numel() for ids in prompts) and meter.computed == through
    assert meter.saved == 2 * 40 + 2 * 40 == meter.tokens - meter.computed  # third and fourth prompt, both rows of the fifth
    assert meter.states == 1 and meter.nbytes == BASE.cache_bytes(40, dtype=torch.float64)


def test_a_state_from_a_file_serves(tmp_path):
    model, prefix = make_model(BASE), random_ids(BASE, 1, 40, seed=50)
    file = zl.PrefixStore(model).read(prefix).save(tmp_path / "prefix")
    store = zl.PrefixStore(model)
    store.add(zl.Cache.load(file, model))
    rest, cache = store.split(prompts_after(prefix, 1)[0])
    assert cache.length == 40 and rest.shape == (1, 6) and store.meter.saved == 40


def test_states_beyond_max_bytes_are_given_up_the_least_used_first():
    model, size = make_model(BASE), BASE.cache_bytes(20, dtype=torch.float64)
    store = zl.PrefixStore(model, max_bytes=2 * size)
    one, two, three = (random_ids(BASE, 1, 20, seed) for seed in (1, 2, 3))
    for ids in (one, two, one, three):
        store.read(ids)
    assert store.meter.states == 2 and store.meter.nbytes == 2 * size
    assert [bool(store._longest(ids[0])) for ids in (one, two, three)] == [True, False, True]
    small = zl.PrefixStore(model, max_bytes=size - 1)
    assert small.read(one).length == 20 and small.meter[3:] == (0, 0)
    store.clear()
    assert store.meter == (0, 0, 0, 0, 0)


def test_what_it_cannot_keep_is_refused():
    model, ids = make_model(BASE), random_ids(BASE)
    store = zl.PrefixStore(model)
    with torch.no_grad():
        _, cache = model.extend(ids)
    with pytest.raises(ValueError, match="one row whose tokens are known.*got 2 rows"):
        store.add(cache)
    with pytest.raises(ValueError, match="max_bytes must be 0 or more"):
        zl.PrefixStore(model, max_bytes=-1)
