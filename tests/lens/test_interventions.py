"""An intervention does what it says, where it says, in prefill as in decoding, and leaves the model as it was."""

import copy

import pytest
import torch
from lens_cases import TRAINED, case
from shipped import nano, nano_ids
from variants import BASE, VARIANTS, make_model, random_ids

import zamba_lab as zl
from zamba_lab import lens
from zamba_lab.lens.effect import Cut
from zamba_lab.lens.parts import adapters

every_variant = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
LAST = {"invocation": "link", "adapter": "adapters", "head": "attention", "mixer": "mamba"}


def all_interventions(model, ids, cache) -> list[lens.Intervention]:
    """One of each kind that the model has, with another text as donor; cache: of another text."""
    c, at, found = model.config, cache.length, []
    other = (ids + 1) % c.vocab_size
    for part in lens.parts(c):
        head = 1 if part == "head" else None
        found += [lens.zero(part, 0, head=head), lens.mean(part, None, other, head=head), lens.resample(part, 0, other, head=head)]
    for part in ("ssm", "conv", "kv"):
        if any(part in layer.tensors() or (part == "kv" and layer.k is not None) for layer in cache.layers):
            found += [lens.wipe(part, 0, at), lens.freeze(part, None, at), lens.overwrite(part, 0, at, cache)]
    if c.n_invocations:
        found += [lens.swap_blocks(0, c.n_shared_blocks - 1), lens.one_block(), lens.untie()]
        if c.link_into == "mixer":
            found += [lens.path(0, "z"), lens.path(c.n_invocations - 1, ("x", "z"), other)]
        found += [lens.permute_adapters(range(c.n_invocations)[::-1])] * bool(adapters(c))
    return found


def in_steps(model, ids):
    cache, steps = None, []
    for token in ids.split(1, dim=1):
        logits, cache = model.extend(token, cache)
        steps.append(logits)
    return torch.cat(steps, dim=1)


@every_variant
@torch.no_grad()
def test_prefill_and_token_by_token_decoding_are_the_same_under_every_intervention(config):
    model, ids = make_model(config), random_ids(config, b=1, l=5)
    _, donor = model.extend((ids[:, :3] + 2) % config.vocab_size)
    plain = model(ids)
    for one in all_interventions(model, ids, donor):
        changed = lens.intervene(model, one)
        logits = changed(ids)
        torch.testing.assert_close(in_steps(changed, ids), logits, rtol=0, atol=1e-10, msg=lambda m: f"{one.name}: {m}")
        assert logits.isfinite().all(), one.name
    assert torch.equal(model(ids), plain)


@torch.no_grad()
def test_pieces_of_any_length_are_the_same_under_every_intervention():
    model, ids = make_model(BASE), random_ids(BASE, l=11)
    for one in all_interventions(model, ids, model.extend((ids[:, :7] + 2) % 29)[1]):
        changed = lens.intervene(model, one)
        for cut in (6, 7, 9):  # one before the other text's memory comes in, there, and behind
            first, cache = changed.extend(ids[:, :cut])
            rest, _ = changed.extend(ids[:, cut:], cache)
            torch.testing.assert_close(torch.cat([first, rest], 1), changed(ids), rtol=0, atol=1e-10)


@torch.no_grad()
def test_prefill_and_decoding_are_the_same_in_the_shipped_model():
    model, ids = nano(), nano_ids(1, 8)
    _, donor = model.extend(nano_ids(1, 9)[:, 4:])
    for one in all_interventions(model, ids, donor):
        changed = lens.intervene(model, one)
        torch.testing.assert_close(in_steps(changed, ids), changed(ids), rtol=0, atol=1e-9, msg=lambda m: f"{one.name}: {m}")


@every_variant
@torch.no_grad()
def test_without_interventions_all_is_bitwise_the_models_own(config):
    model, ids = make_model(config), random_ids(config)
    changed = lens.intervene(model)
    assert torch.equal(changed(ids), model(ids))
    assert torch.equal(in_steps(changed, ids), in_steps(model, ids))
    assert torch.equal(zl.generate(changed, ids, 3), zl.generate(model, ids, 3))


def zeroed(model: zl.Zamba, part: str, where: int) -> zl.Zamba:
    """A copy of the model with the weights at 0 through which a part acts."""
    other = copy.deepcopy(model)
    depth = model.config.hybrid_layers[where] if part in ("invocation", "adapter") else where
    layer = other.layers[depth]
    with torch.no_grad():
        if part == "invocation":
            layer.invocation.link.weight.zero_()
        elif part == "adapter":
            for adapter in layer.invocation.adapters.values():
                adapter.up.weight.zero_()
        else:
            layer.mamba.out_proj.weight.zero_()
            if layer.mamba.out_proj.bias is not None:
                layer.mamba.out_proj.bias.zero_()
    return other


@pytest.mark.parametrize("name", ["base", "mamba1", "lora on qkv", "biases", "unshared", TRAINED])
@pytest.mark.parametrize("part", ["invocation", "adapter", "mixer"])
@torch.no_grad()
def test_a_part_zeroed_equals_its_last_weights_zeroed(name, part):
    model, ids = case(name)
    for where in (0, 2):
        expected = zeroed(model, part, where)(ids)
        torch.testing.assert_close(lens.intervene(model, lens.zero(part, where))(ids), expected, rtol=0, atol=1e-11)
        assert not torch.allclose(expected, model(ids))


@pytest.mark.parametrize("name", ["one block", "lora on qkv only, grouped queries", "transformer", TRAINED])
@torch.no_grad()
def test_a_head_zeroed_equals_its_columns_of_the_output_projection_zeroed(name):
    model, ids = case(name)
    config = model.config
    without, p = copy.deepcopy(model), config.head_dim
    if config.mixer == "attention":
        without.layers[1].attention.o.weight[:, 2 * p : 3 * p] = 0
        one = lens.zero("head", 1, head=2)
    else:
        for block in without.shared_blocks:
            block.attention.o.weight[:, 2 * p : 3 * p] = 0
        one = lens.zero("head", head=2)
    torch.testing.assert_close(lens.intervene(model, one)(ids), without(ids), rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", ["base", TRAINED])
@torch.no_grad()
def test_concat_dropped_hides_the_embeddings_from_that_invocation_alone(name):
    model, ids = case(name)
    trace = lens.run(lens.intervene(model, lens.drop_concat(1)), ids, keep=["invocation.*.input"])
    for k in range(model.config.n_invocations):
        stream, embedding = trace[f"invocation.{k}.input"].chunk(2, dim=-1)
        assert bool(embedding.any()) == (k != 1) and stream.any()


@pytest.mark.parametrize("name", ["base", "mamba1", TRAINED])
@torch.no_grad()
def test_the_mean_is_that_of_the_reference_and_a_sample_is_of_the_same_position(name):
    model, ids = case(name)
    other = random_ids(model.config, b=1, l=37, seed=5)
    points = ["layers.3.mamba.x"]
    given = lens.run(model, other, keep=points)[points[0]]
    for one, expected in (
        (lens.mean("convolution", 3, other), given.mean((0, 1)).expand(*ids.shape, -1, -1)),
        (lens.resample("convolution", 3, other), given[:, : ids.shape[1]].expand(len(ids), -1, -1, -1)),
    ):
        found = lens.run(lens.intervene(model, one), ids, keep=points)[points[0]]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@every_variant
@torch.no_grad()
def test_resampling_from_the_same_text_changes_nothing(config):
    model, ids = make_model(config), random_ids(config)
    plain = lens.run(model, ids, keep=["logits"])["logits"]
    for part in lens.parts(config):
        one = lens.resample(part, None, ids, head=0 if part == "head" else None)
        assert torch.equal(lens.run(lens.intervene(model, one), ids, keep=["logits"])["logits"], plain), part


@pytest.mark.parametrize("name", [*[name for name, c in VARIANTS.items() if c.n_invocations > 2], TRAINED])
@torch.no_grad()
def test_a_patch_at_invocation_2_leaves_invocations_0_and_1_bitwise_as_they_were(name):
    model, ids = case(name)
    names = ["q", "k", "v", "attn_probs", "attn_out", "mlp_out", "link_out"]
    points = [f"invocation.{k}.{name}" for k in (0, 1) for name in names]
    patches = [lens.zero("invocation", 2), lens.resample("head", 2, ids.flip(1), head=1)]
    patches += [lens.path(2, "z", ids.flip(1))] if model.config.link_into == "mixer" else []
    patches += [lens.zero(part, 2) for part in ("adapter", "concat") if part in lens.parts(model.config)]
    whole = lens.run(model, ids, keep=[*points, "logits"])
    for one in patches:
        changed = lens.run(lens.intervene(model, one), ids, keep=[*points, "logits"])
        assert all(torch.equal(whole[point], changed[point]) for point in points), one.name
        assert not torch.equal(whole["logits"], changed["logits"]), one.name


@torch.no_grad()
def test_interventions_compose_and_nest_in_their_order():
    model, ids = make_model(BASE), random_ids(BASE)
    first, second = lens.zero("invocation", 0), lens.swap_blocks()
    with lens.intervene(model, first) as inner, lens.intervene(inner, second) as outer:
        logits = outer(ids)
    assert outer.interventions == (first, second) and inner.interventions == (first,)
    assert torch.equal(logits, lens.intervene(model, first, second)(ids))
    for other in (model, inner, lens.intervene(model, second)):
        assert not torch.allclose(logits, other(ids))
    twice = lens.intervene(model, lens.mean("mixer", 1, ids), lens.zero("mixer", 1))
    torch.testing.assert_close(twice(ids), lens.intervene(model, lens.zero("mixer", 1))(ids), rtol=0, atol=1e-12)


@torch.no_grad()
def test_the_callers_trace_sees_the_changed_pass_and_edits_after_it():
    model, ids = make_model(BASE), random_ids(BASE)
    point = "invocation.1.link_out"
    trace = zl.Trace(keep=[point], edit={point: lambda t: t + 1})
    lens.intervene(model, lens.zero("invocation", 1))(ids, trace=trace)
    assert torch.equal(trace[point], torch.ones_like(trace[point]))
    assert torch.equal(trace["layers.2.shared.link_out"], trace[point])


@pytest.mark.parametrize("variant", ["base", "mamba1", "transformer, grouped queries, no rope"])
@pytest.mark.parametrize("cuts", [(3, 4, 11), (9,)])
@torch.no_grad()
def test_a_pass_in_pieces_traces_what_one_pass_does(variant, cuts):
    model, ids = make_model(VARIANTS[variant]), random_ids(BASE)
    whole, pieces = (lens.run(m, ids, keep=["*"]) for m in (model, lens.intervene(model, *map(Cut, cuts))))
    assert list(whole) == list(pieces)
    for name in whole:
        torch.testing.assert_close(pieces[name], whole[name], rtol=0, atol=1e-10, msg=lambda m: f"{name}: {m}")


@pytest.mark.parametrize("variant", ["base", "mamba1", "transformer"])
@torch.no_grad()
def test_padding_changes_nothing_under_an_intervention_and_the_last_real_logits_are_found(variant):
    config = VARIANTS[variant]
    model, ids = make_model(config), random_ids(config, b=2, l=12)
    mask = torch.tensor([[0, 0, 0] + [1] * 9, [1] * 9 + [0, 0, 0]])
    part, head = ("head", 1) if config.mixer == "attention" else ("mixer", None)
    memory = "kv" if config.mixer == "attention" else "ssm"  # states are wiped between two pieces
    for one in (lens.zero(part, 1, head=head), lens.wipe(memory, 0, at=5)):
        changed = lens.intervene(model, one)
        logits, _ = changed.extend(ids, mask=mask)
        last, _ = changed.extend(ids, mask=mask, last_only=True)
        torch.testing.assert_close(last[:, 0], torch.stack([logits[0, 11], logits[1, 8]]), rtol=0, atol=1e-11)
    logits = lens.intervene(model, lens.zero(part, 1, head=head))(ids, mask)
    for row in range(2):
        alone = lens.intervene(model, lens.zero(part, 1, head=head))(ids[row : row + 1, mask[row].bool()])
        torch.testing.assert_close(logits[row : row + 1, mask[row].bool()], alone, rtol=0, atol=1e-11)


@torch.no_grad()
def test_generation_goes_on_under_the_interventions():
    model, ids = make_model(BASE), random_ids(BASE)
    changed = lens.intervene(model, lens.wipe("ssm", None, at=21), lens.zero("invocation", 0))
    new = zl.generate(changed, ids, 6)
    logits = changed(torch.cat([ids, new], dim=1))
    assert torch.equal(logits[:, 18:-1].argmax(-1), new)


PURE, TRANSFORMER = VARIANTS["pure mamba2"], VARIANTS["transformer"]


@pytest.mark.parametrize(
    "config, one, message",
    [
        (PURE, lens.zero("invocation", 0), "got 'invocation', the model has mixer, convolution, steps"),
        (VARIANTS["no lora"], lens.zero("adapter"), "got 'adapter', the model has invocation, head, concat"),
        (VARIANTS["no concat"], lens.drop_concat(), "got 'concat', the model has invocation, head, adapter, mixer"),
        (TRANSFORMER, lens.zero("mixer", 0), "got 'mixer', the model has head"),
        (BASE, lens.zero("link"), "got 'link', the model has invocation"),
        (BASE, lens.zero("invocation", 3), "got invocation 3, the model has 3 of them"),
        (BASE, lens.zero("mixer", -1), "got mixer -1, the model has 5 of them"),
        (BASE, lens.zero("head", 0), "got part 'head', head None"),
        (BASE, lens.zero("mixer", 0, head=1), "got part 'mixer', head 1"),
        (BASE, lens.zero("head", 0, head=4), "head must be in 0..3: got 4"),
        (PURE, lens.wipe("kv", 0, 3), "the model has no kv: mixer 'mamba2', n_shared_blocks 0"),
        (TRANSFORMER, lens.freeze("ssm", 0, 3), "the model has no ssm: mixer 'attention'"),
        (TRANSFORMER, lens.wipe("conv", 0, 3), "the model has no conv: mixer 'attention'"),
        (BASE, lens.freeze("conv", 5, 3), "got conv 5, the model has 5 of them"),
        (BASE, lens.wipe("ssm", 1, 0), "at must be 1 or more"),
        (PURE, lens.swap_blocks(), "blocks A and B swapped: the model has no shared block"),
        (VARIANTS["one block"], lens.swap_blocks(), "got 1, n_shared_blocks 1"),
        (BASE, lens.one_block(2), "got 2, n_shared_blocks 2"),
        (VARIANTS["no lora"], lens.permute_adapters((2, 1, 0)), "no adapters to permute"),
        (BASE, lens.permute_adapters((0, 0, 1)), r"each of the 3 invocations once: got \(0, 0, 1\)"),
        (PURE, lens.path(0, "z"), "no path from attention to a mixer"),
        (BASE, lens.path(0, ("z", "y")), "leads to z, x, B, C, dt of a mamba2 mixer"),
        (VARIANTS["mamba1"], lens.path(0, "dt"), "leads to x, z of a mamba1 mixer"),
        (BASE, lens.path(3, "z"), "got invocation 3"),
    ],
)
def test_what_the_config_lacks_is_refused_before_anything_runs(config, one, message):
    with pytest.raises(ValueError, match=message):
        lens.intervene(make_model(config), one)


@pytest.mark.parametrize("make", [lambda ids: lens.resample("mixer", 0, ids), lambda ids: lens.path(0, "z", ids)])
def test_another_text_must_be_as_long_and_have_a_row_for_each(make):
    model, ids = make_model(BASE), random_ids(BASE)
    for other, message in ((ids[:, :9], r"\(2, 9\) for 2 rows of 19"), (random_ids(BASE, b=3), r"\(3, 19\) for 2 rows of 19")):
        with pytest.raises(ValueError, match=message):
            lens.intervene(model, make(other))(ids)
    with pytest.raises(ValueError, match=r"got \(19,\)"):
        make(ids[0])


@pytest.mark.parametrize("make", [lens.wipe, lens.freeze, lambda *a: lens.overwrite(*a, None)])
def test_a_memory_that_does_not_exist_is_refused(make):
    with pytest.raises(ValueError, match="part must be one of conv, ssm, kv: got 'state'"):
        make("state", 0, 3)
