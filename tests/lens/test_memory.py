"""Memories wiped, frozen and overwritten, against the same done by hand."""

from dataclasses import replace

import pytest
import torch
from shipped import nano, nano_ids
from variants import BASE, VARIANTS, make_model, random_ids

import zamba_lab as zl
from zamba_lab import lens
from zamba_lab.cache import LayerCache

MIXERS = {name: (make_model(VARIANTS[name]), random_ids(BASE)) for name in ("base", "mamba1", "pure mamba2", "conv of one tap")}
MIXERS["nano"] = nano(), nano_ids(2, 19)
each_mixer = pytest.mark.parametrize("model, ids", MIXERS.values(), ids=MIXERS.keys())


def with_layer(cache, depth, **changes):
    layers = list(cache.layers)
    layers[depth] = replace(layers[depth], **changes)
    return replace(cache, layers=tuple(layers))


@each_mixer
@pytest.mark.parametrize("part", ["ssm", "conv"])
@pytest.mark.parametrize("at", [1, 8])
@torch.no_grad()
def test_wiping_equals_going_on_from_a_cache_with_zeros(model, ids, part, at):
    logits = lens.intervene(model, lens.wipe(part, 2, at))(ids)
    before, cache = model.extend(ids[:, :at])
    after, _ = model.extend(ids[:, at:], with_layer(cache, 2, **{part: torch.zeros_like(getattr(cache.layers[2], part))}))
    assert torch.equal(logits, torch.cat([before, after], dim=1))


@torch.no_grad()
def test_everything_wiped_is_a_fresh_start_but_for_positions():
    config = VARIANTS["no rope"]
    model, ids = make_model(config), random_ids(config)
    everything = [lens.wipe(part, None, at=8) for part in ("ssm", "conv", "kv")]
    torch.testing.assert_close(lens.intervene(model, *everything)(ids)[:, 8:], model(ids[:, 8:]), rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    "model, ids",
    [
        (nano(), nano_ids(2, 19)),
        *[(make_model(VARIANTS[name]), random_ids(BASE)) for name in ("base", "one kv head, wide head", "transformer")],
    ],
)
@torch.no_grad()
def test_wiped_keys_are_not_there_and_frozen_keys_are_all_there_is(model, ids):
    config = model.config
    where = "layers.1.attention" if config.mixer == "attention" else "invocation.1"
    depth = 1 if config.mixer == "attention" else config.hybrid_layers[1]
    for make, seen in ((lens.wipe, lambda t: slice(8, t + 1)), (lens.freeze, lambda t: [*range(8), t])):
        changed = lens.intervene(model, make("kv", 1, 8))
        assert not any(isinstance(each, lens.MemoryChange) for each in changed.interventions)  # the pass stays in one piece
        probs = lens.run(changed, ids, keep=[f"{where}.attn_probs"])[f"{where}.attn_probs"]
        torch.testing.assert_close(probs.sum(-1), torch.ones_like(probs.sum(-1)))
        for t in range(8, 19):
            others = probs[:, :, t].clone()
            assert others[..., seen(t)].min() > 0
            others[..., seen(t)] = 0
            assert others.max() == 0
    _, cache = model.extend(ids[:, :8])
    layer = cache.layers[depth]
    gone = with_layer(cache, depth, k=layer.k[:, :, :0], v=layer.v[:, :, :0])
    torch.testing.assert_close(
        lens.intervene(model, lens.wipe("kv", 1, 8))(ids)[:, 8:9], model.extend(ids[:, 8:9], gone)[0], rtol=0, atol=1e-11
    )


@each_mixer
@torch.no_grad()
def test_a_frozen_state_stays_bitwise_what_it_was_and_no_other_does(model, ids):
    trace = lens.run(lens.intervene(model, lens.freeze("ssm", 3, at=8)), ids, keep=["*.mamba.state"])
    frozen, free = trace["layers.3.mamba.state"], trace["layers.2.mamba.state"]
    assert torch.equal(frozen[:, 7:], frozen[:, 7:8].expand_as(frozen[:, 7:]))
    assert not torch.allclose(free[:, 7:], free[:, 7:8].expand_as(free[:, 7:]))
    assert not torch.allclose(frozen[:, :7], frozen[:, 1:8])


@pytest.mark.parametrize("config", [BASE, VARIANTS["mamba1"], VARIANTS["no conv bias"]], ids=["mamba2", "mamba1", "no bias"])
@torch.no_grad()
def test_a_frozen_window_shows_each_token_beside_the_same_inputs(config):
    model, ids = make_model(config), random_ids(config)
    changed = lens.intervene(model, lens.freeze("conv", 0, at=8))
    x = lens.run(changed, ids, keep=["layers.0.mamba.x"])["layers.0.mamba.x"]
    for t in (8, 12, 18):  # layer 0 sees nothing but its tokens: put t behind the first eight
        beside = torch.cat([ids[:, :8], ids[:, t : t + 1]], dim=1)
        torch.testing.assert_close(x[:, t], lens.run(model, beside, keep=["layers.0.mamba.x"])["layers.0.mamba.x"][:, 8])
    _, cache = changed.extend(ids)
    assert torch.equal(cache.layers[0].conv, model.extend(ids[:, :8])[1].layers[0].conv)


@pytest.mark.parametrize(
    "model, ids, other",
    [
        *[(make_model(c), random_ids(c), random_ids(c, seed=7)) for c in (BASE, VARIANTS["mamba1"], VARIANTS["no rope"])],
        (nano(), nano_ids(2, 19), nano_ids(2, 24)[:, 5:]),
    ],
    ids=["mamba2", "mamba1", "no rope", "nano"],
)
@torch.no_grad()
def test_overwriting_all_with_another_texts_memory_continues_that_text_bitwise_and_ones_own_changes_nothing(model, ids, other):
    _, own = model.extend(ids[:, :8])
    _, donor = model.extend(other[:, :8])
    for cache, expected in ((own, own), (donor, donor)):
        changed = lens.intervene(model, *[lens.overwrite(part, None, 8, cache) for part in ("ssm", "conv", "kv")])
        assert torch.equal(changed(ids)[:, 8:], model.extend(ids[:, 8:], expected)[0])


@torch.no_grad()
def test_one_part_overwritten_equals_the_transplant():
    model, ids, other = make_model(BASE), random_ids(BASE), random_ids(BASE, seed=7)
    _, own = model.extend(ids[:, :8])
    _, donor = model.extend(other[:, :8])
    for part, where, depth in (("ssm", 3, 3), ("conv", 0, 0), ("kv", 1, 2)):
        changed = lens.intervene(model, lens.overwrite(part, where, 8, donor))(ids)
        mixed = lens.transplant(own, donor, (part,), (depth,))
        assert torch.equal(changed[:, 8:], model.extend(ids[:, 8:], mixed)[0])
        assert not torch.allclose(changed[:, 8:], model.extend(ids[:, 8:], own)[0])


@pytest.mark.parametrize(
    "part, where, cut, message",
    [
        ("kv", 1, 7, r"kv 1 at token 8 must have shape \(batch, 4, 8, 8\): the donor has \(2, 4, 7, 8\)"),
        ("ssm", 4, None, r"ssm 4 at token 8 must have shape \(batch, 8, 4, 6\): the donor has none"),
    ],
)
def test_a_donor_that_does_not_fit_is_refused_before_anything_runs(part, where, cut, message):
    model, ids = make_model(BASE), random_ids(BASE)
    _, donor = model.extend(ids[:, : cut or 8])
    donors = [donor]
    if cut is None:
        donors = [replace(donor, layers=(*donor.layers[:4], *more)) for more in ((), (LayerCache(),))]
    for donor in donors:
        with pytest.raises(ValueError, match=message):
            lens.intervene(model, lens.overwrite(part, where, 8, donor))


MAKERS = {"wipe": lens.wipe, "freeze": lens.freeze, "overwrite": lens.overwrite}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())
@pytest.mark.parametrize("part", ["ssm", "conv", "kv"])
@torch.no_grad()
def test_a_memory_changed_past_the_text_is_refused_before_anything_runs_and_may_lie_ahead_in_decoding(part, make, monkeypatch):
    model, ids = make_model(BASE), random_ids(BASE)
    more = (model.extend(random_ids(BASE, seed=7)[:, :8])[1],) * (make is lens.overwrite)
    one = make(part, 1, 8, *more)
    changed = lens.intervene(model, one)
    whole = changed(ids)
    read, cache = changed.extend(ids[:, :7])  # 8 lies ahead
    torch.testing.assert_close(torch.cat([read, changed.extend(ids[:, 7:], cache)[0]], 1), whole, rtol=0, atol=1e-10)
    assert not torch.allclose(whole, model(ids))
    assert changed(ids[:, :9]).shape[1] == 9  # the last token is the first that it is in force for
    monkeypatch.setattr(type(model), "extend", None)  # whatever runs now fails otherwise
    monkeypatch.setattr(type(model), "forward", None)
    for l in (8, 5):
        for ask in (
            lambda: changed(ids[:, :l]),
            lambda: lens.run(changed, ids[:, :l], keep=["logits"]),
            lambda: lens.effect(model, ids[:, :l], [lens.untie(), one]),
        ):
            with pytest.raises(ValueError, match=f"{part} 1 .* at token 8, a text of {l} tokens"):
                ask()


def test_a_donor_of_another_type_or_depth_is_refused_before_anything_runs():
    model, ids = make_model(BASE), random_ids(BASE)
    narrow, deeper = make_model(BASE).float(), make_model(replace(BASE, n_layers=6))
    for part in ("ssm", "conv", "kv"):
        with pytest.raises(ValueError, match=f"{part} 1 must be torch.float64 on cpu, .* is torch.float32 on cpu"):
            lens.intervene(model, lens.overwrite(part, 1, 8, narrow.extend(ids[:, :8])[1]))
        with pytest.raises(ValueError, match="it has 6 layers, the model 5"):
            lens.intervene(model, lens.overwrite(part, 1, 8, deeper.extend(ids[:, :8])[1]))
    donor = model.extend(ids[:, :8])[1]
    mixed = with_layer(donor, 2, v=donor.layers[2].v[..., :3])
    with pytest.raises(ValueError, match=r"shape \(batch, 4, 8, 8\): the donor has \(2, 4, 8, 3\)"):
        lens.intervene(model, lens.overwrite("kv", 1, 8, mixed))


@pytest.mark.parametrize("change", [lambda m: m.bfloat16(), lambda m: zl.quantize(m.float())], ids=["bfloat16", "int8"])
@torch.no_grad()
def test_a_model_s_own_memory_is_of_its_type_whatever_that_is(change):
    model, ids = change(make_model(BASE)), random_ids(BASE)
    _, own = model.extend(ids[:, :8])
    for part in ("ssm", "conv", "kv"):
        assert lens.intervene(model, lens.overwrite(part, None, 8, own))(ids).isfinite().all()


def test_a_donor_of_another_width_or_batch_is_refused():
    model, ids = make_model(BASE), random_ids(BASE)
    other = make_model(replace(BASE, d_state=5))
    with pytest.raises(ValueError, match=r"shape \(batch, 8, 4, 6\): the donor has \(2, 8, 4, 5\)"):
        lens.intervene(model, lens.overwrite("ssm", 0, 8, other.extend(ids[:, :8])[1]))
    changed = lens.intervene(model, lens.overwrite("ssm", 0, 8, model.extend(ids[:, :8])[1]))
    with pytest.raises(ValueError, match="a row for each row: got 2 for 1"):
        changed(ids[:1])
