"""An effect is the difference it says; its controls are as large; its interval is a bootstrap's."""

import pytest
import torch
from shipped import nano, nano_ids
from variants import BASE, VARIANTS, make_model, random_ids

from zamba_lab import lens
from zamba_lab.lens.effect import Nudge

HYBRID = [
    lens.zero("invocation", 1),
    lens.zero("head", 0, head=1),
    lens.zero("adapter"),
    lens.drop_concat(2),
    lens.swap_blocks(),
    lens.path(1, "dt"),
    lens.wipe("kv", 1, at=9),
    lens.freeze("kv", None, at=9),
]
ANY = [
    lens.zero("mixer", 2),
    lens.zero("convolution", 0),
    lens.wipe("ssm", 3, at=9),
    lens.freeze("ssm", None, at=9),
    lens.wipe("conv", 1, at=9),
    lens.freeze("conv", 1, at=9),
]


def models():
    return [
        ("random", make_model(BASE), random_ids(BASE, b=3)),
        ("nano", nano(), nano_ids(3, 19)),
        ("mamba1", make_model(VARIANTS["mamba1"]), random_ids(BASE, b=3)),
    ]


@pytest.mark.parametrize("one", [*HYBRID, *ANY], ids=lambda one: one.name)
def test_a_control_is_at_every_outlet_and_token_as_far_from_the_model_as_the_intervention_is(one):
    model, ids = make_model(BASE), random_ids(BASE)
    changed, outlets = lens.intervene(model, one), one.outlets(model.config)
    before, after = (lens.run(m, ids, keep=outlets) for m in (lens.intervene(model), changed))
    nudges = [Nudge.between(before, after, outlets, seed, "isotropic") for seed in (0, 0, 1)]
    same, again, other = (lens.run(lens.intervene(model, nudge), ids, keep=outlets) for nudge in nudges)
    assert outlets
    for point in outlets:
        far = [(trace[point] - before[point]).flatten(2).norm(dim=-1) for trace in (after, same, other)]
        torch.testing.assert_close(far[1], far[0], rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(far[2], far[0], rtol=1e-9, atol=1e-11)
        assert far[0].max() > 1e-6 and torch.equal(same[point], again[point]) and not torch.equal(same[point], other[point])


def test_a_control_of_its_own_goes_from_each_output_towards_the_difference_of_two_others():
    model, ids, one = make_model(BASE), random_ids(BASE), lens.zero("invocation", 1)
    point = one.outlets(model.config)[0]
    before, after = (lens.run(m, ids, keep=[point]) for m in (lens.intervene(model), lens.intervene(model, one)))
    moved = Nudge.between(before, after, [point], 0, "own").values[point] - before[point]
    torch.testing.assert_close(moved.norm(dim=-1), (after[point] - before[point]).norm(dim=-1))
    outputs = before[point].flatten(0, 1)
    pairs = torch.nn.functional.normalize(outputs[:, None] - outputs[None], dim=-1)
    cosines = torch.einsum("nd,ijd->nij", torch.nn.functional.normalize(moved.flatten(0, 1), dim=-1), pairs).flatten(1).amax(1)
    torch.testing.assert_close(cosines[moved.flatten(0, 1).norm(dim=-1) > 0], torch.ones_like(cosines), rtol=0, atol=1e-3)
    isotropic = lens.effect(model, ids, one, controls=1, direction="isotropic")
    own = lens.effect(model, ids, one, controls=1)
    assert torch.equal(own.changed, isotropic.changed) and not torch.equal(own.control, isotropic.control)
    constant = lens.intervene(model, lens.mean("invocation", 1, ids))  # outputs that do not differ leave nothing else than any direction
    assert lens.effect(constant, ids, one, controls=1, direction="own").control.isfinite().all()
    with pytest.raises(ValueError, match="direction must be one of isotropic, own: got 'up'"):
        lens.effect(model, ids, one, direction="up")


@pytest.mark.parametrize("name, model, ids", models(), ids=lambda value: value if isinstance(value, str) else "")
def test_an_effect_is_the_difference_of_the_losses_and_an_unreached_token_has_none(name, model, ids):
    found = lens.effect(model, ids, lens.wipe("ssm", 2, at=9))
    changed = lens.token_losses(lens.intervene(model, lens.wipe("ssm", 2, at=9))(ids).detach(), ids)
    torch.testing.assert_close(found.baseline, lens.next_token_loss(model, ids))
    torch.testing.assert_close(found.changed, changed)
    assert found.change.shape == (3, 18) and found.control.shape == (3, 3, 18)
    assert (found.change[:, :9] == 0).all() and (found.control_change[:, :, :9] == 0).all()
    assert found.change[:, 9:].abs().max() > 1e-9 and found.control_change[..., 9:].abs().max() > 1e-9
    low, high = found.interval()
    assert low < found.change.mean() < high


def test_intervals_are_those_of_each_prompts_mean_over_its_tokens_and_of_its_controls():
    found = lens.effect(make_model(BASE), random_ids(BASE, b=4), lens.zero("mixer", 1))
    # summed in this order: which resampled means of 4 prompts are the mean itself, the last bit decides, and BCa counts them
    controls, beyond = found.control_change.mean(0).mean(1), (found.change - found.control_change.mean(0)).mean(1)
    torch.testing.assert_close(beyond, found.change.mean(1) - found.control_change.mean((0, 2)))
    for level in (0.95, 0.5):
        assert found.interval(level) == tuple(map(float, lens.bootstrap(found.change.mean(1), level)))
        low, high = lens.bootstrap(controls, level)
        assert found.control_interval(level) == pytest.approx((float(low), float(high))) and low < high
        assert found.excess_interval(level) == pytest.approx(tuple(map(float, lens.bootstrap(beyond, level))))


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_part_can_be_zeroed_and_the_effect_is_finite(config):
    model, ids = make_model(config), random_ids(config, l=7)
    for part in lens.parts(config):
        found = lens.effect(model, ids, lens.zero(part, head=0 if part == "head" else None), controls=1)
        assert found.change.isfinite().all() and found.control.isfinite().all() and found.change.abs().max() > 1e-9, part


def test_each_control_has_a_seed_of_its_own_that_follows_the_one_before():
    model, ids, one = make_model(BASE), random_ids(BASE), lens.zero("mixer", 2)
    first, second = (lens.effect(model, ids, one, seed=seed, controls=2).control for seed in (0, 1))
    assert torch.equal(first[1], second[0]) and not torch.equal(first[0], first[1])
    assert torch.equal(lens.effect(model, ids, one).control[:2], first)


def test_nothing_done_has_no_effect_and_as_small_controls():
    model, ids = make_model(BASE), random_ids(BASE)
    for nothing in ([], [lens.untie()], [lens.swap_blocks(), lens.swap_blocks()], [lens.resample("mixer", 1, ids)]):
        found = lens.effect(model, ids, nothing)
        assert (found.change == 0).all() and (found.control_change == 0).all()
        assert found.interval() == found.control_interval() == (0, 0)


def test_several_interventions_are_measured_together_and_upon_others():
    model, ids = make_model(BASE), random_ids(BASE)
    first, second = lens.zero("invocation", 0), lens.wipe("conv", 1, at=5)
    both = lens.effect(model, ids, [first, second])
    upon = lens.effect(lens.intervene(model, first), ids, second, controls=0)
    assert both.name == "invocation 0 zeroed and conv 1 wiped at token 5"
    torch.testing.assert_close(upon.changed, both.changed)
    torch.testing.assert_close(upon.baseline, lens.effect(model, ids, first, controls=0).changed)
    assert upon.control.shape == (0, 2, 18)


def test_a_divergence_is_zero_from_itself_and_above_zero_from_another():
    model, ids = make_model(BASE), random_ids(BASE)
    with torch.no_grad():
        measure = lens.divergence_from(model(ids))
    found = lens.effect(model, ids, lens.zero("mixer", 4), metric=measure)
    assert found.baseline.shape == (2, 19) and found.baseline.abs().max() < 1e-12
    assert found.changed.min() > 0 and found.control.min() > 0
    with torch.no_grad():
        p, q = (m(ids).softmax(-1) for m in (model, lens.intervene(model, lens.zero("mixer", 4))))
    torch.testing.assert_close(found.changed, (p * (p / q).log()).sum(-1))


def test_padding_does_not_enter_an_effect():
    model, ids = make_model(BASE), random_ids(BASE, l=12)
    mask = torch.tensor([[1] * 12, [1] * 9 + [0] * 3])
    found = lens.effect(model, ids, lens.zero("mixer", 1), mask=mask, controls=0)
    alone = lens.effect(model, ids[1:, :9], lens.zero("mixer", 1), controls=0)
    torch.testing.assert_close(found.changed[1:, :8], alone.changed)


def divergence_in_two(model, ids, mask):
    """A measure of two numbers a token."""
    with torch.no_grad():
        measure = lens.divergence_from(model(ids, mask))
    return lambda logits, ids: torch.stack([measure(logits, ids), 2 * measure(logits, ids)], dim=-1)


@pytest.mark.parametrize("measure", ["loss", "divergence, twice"])
@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
def test_the_intervals_of_padded_prompts_are_those_of_the_prompts(left, measure):
    model, ids, off = make_model(BASE), random_ids(BASE, b=8, l=9), lens.zero("mixer", 1)
    lengths = (9, 7, 9, 4, 6, 8, 5, 9)
    prompts = [row[:length] for row, length in zip(ids, lengths)]
    padded, others, mask = (torch.full((8, 12), fill) for fill in (3, 11, 0))
    for row, (length, prompt) in enumerate(zip(lengths, prompts)):
        place = slice(12 - length, None) if left else slice(length)
        padded[row, place] = others[row, place] = prompt
        mask[row, place] = 1

    def found(ids, mask):
        return lens.effect(model, ids, off, lens.token_losses if measure == "loss" else divergence_in_two(model, ids, mask), mask)

    one, other = found(padded, mask), found(others, mask)
    one_by_one = torch.stack([found(prompt[None], None).change.mean() for prompt in prompts])
    torch.testing.assert_close(one.by_prompt(one.change), one_by_one)
    torch.testing.assert_close(other.by_prompt(other.control_change.mean(0)), one.by_prompt(one.control_change.mean(0)))
    near = dict(abs=0.02)  # what is equal but for rounding ties otherwise among the draws
    low, high = map(float, lens.bootstrap(one_by_one))
    assert one.interval() == pytest.approx((low, high), **near) and high - low > 0.2
    assert one.control_interval() == pytest.approx(other.control_interval(), **near)
    ends = (3, 0) if left else (0, 3)  # of one length, and padding behind or before
    same, ones = (torch.nn.functional.pad(t, ends, value=value) for t, value in ((ids, 5), (torch.ones_like(ids), 0)))
    assert found(same, ones).interval() == pytest.approx(found(ids, None).interval(), **near)


def test_a_prompt_of_padding_says_nothing_and_a_measure_of_a_prompt_has_left_its_padding_out():
    model, ids = make_model(BASE), random_ids(BASE, b=3, l=9)
    mask = torch.tensor([[1] * 9, [1] * 9, [1] + [0] * 8])
    found = lens.effect(model, ids, lens.zero("mixer", 1), mask=mask)
    alone = lens.effect(model, ids[:2], lens.zero("mixer", 1))
    torch.testing.assert_close(found.by_prompt(found.change), alone.change.mean(1))
    of_all = lens.effect(model, ids, lens.zero("mixer", 1), lambda logits, ids: logits.mean((1, 2)), mask)
    assert of_all.real is None and of_all.interval() == tuple(map(float, lens.bootstrap(of_all.change)))


HOW = {"mean": "at its mean", "zero": "zeroed", "resample": "from another text"}


@pytest.mark.parametrize("how", HOW)
def test_switching_off_each_is_each_effect_alone_then_all(how):
    model, ids, reference = make_model(BASE), random_ids(BASE), random_ids(BASE, b=2, l=23, seed=9)
    effects = lens.switch_off_each(model, ids, how, None if how == "zero" else reference)
    assert [each.name for each in effects] == [
        f"{part} {k} {HOW[how]}" if k != 3 else f"every {part} {HOW[how]}" for part in lens.SWITCHED for k in range(4)
    ]
    whole, make = lens.next_token_loss(model, ids), getattr(lens, how)
    for i, each in enumerate(effects):
        where = None if i % 4 == 3 else i % 4
        one = make(lens.SWITCHED[i // 4], where, *[reference] * (how != "zero"))
        torch.testing.assert_close(each.changed, lens.effect(model, ids, one, controls=0).changed, rtol=0, atol=1e-12)
        assert torch.equal(each.baseline, whole) and each.control.shape == (0, *ids[:, 1:].shape) and each.change.abs().max() > 0
    assert lens.switch_off_each(make_model(VARIANTS["pure mamba2"]), ids, how) == []


def test_the_mean_is_taken_over_the_prompts_themselves_and_samples_from_the_next_prompt_if_no_reference_is_given():
    model, ids = make_model(BASE), random_ids(BASE, b=3)
    by_default, of_itself = lens.switch_off_each(model, ids), lens.switch_off_each(model, ids, "mean", ids)
    assert all(torch.equal(one.changed, other.changed) for one, other in zip(by_default, of_itself))
    sampled, rolled = lens.switch_off_each(model, ids, "resample"), lens.switch_off_each(model, ids, "resample", ids[[1, 2, 0]])
    assert all(torch.equal(one.changed, other.changed) for one, other in zip(sampled, rolled))


@torch.no_grad()
def test_a_part_that_always_gives_the_same_vector_is_worth_nothing_by_its_mean_and_much_by_zero():
    model, ids = make_model(BASE), random_ids(BASE)
    constant = torch.randn(BASE.d_model, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    class Constant(lens.Patch):
        name = "invocation 1 constant"

        def edits(self, model):
            return lambda piece: {"invocation.1.link_out": lambda t: constant.expand_as(t)}

    model = lens.intervene(model, Constant())
    off = {how: lens.switch_off_each(model, ids, how)[1] for how in HOW}
    assert off["mean"].name == "invocation 1 at its mean" and off["mean"].change.abs().max() < 1e-12
    assert off["resample"].change.abs().max() == 0 and off["zero"].change.abs().max() > 1e-2


def test_a_way_that_is_none_and_a_reference_that_does_not_fit_are_refused():
    model, ids = make_model(BASE), random_ids(BASE)
    for ask in (lens.switch_off_each, lens.lora_effects):
        with pytest.raises(ValueError, match="how must be one of zero, mean, resample.*: got 'off'"):
            ask(model, ids, "off")
        with pytest.raises(ValueError, match="zero needs no reference"):
            ask(model, ids, "zero", ids)
        with pytest.raises(ValueError, match="two or more are needed, or a reference: got 1 prompt"):
            ask(model, ids[:1], "resample")
        with pytest.raises(ValueError, match=r"got ids of shape \(2, 18\) for 2 rows of 19 tokens"):
            ask(model, ids, "resample", ids[:, 1:])


def test_the_loss_of_the_next_token_needs_one():
    model, ids = make_model(BASE), random_ids(BASE)
    expected = torch.nn.functional.cross_entropy(model(ids)[:, :-1].reshape(-1, 29), ids[:, 1:].reshape(-1))
    torch.testing.assert_close(lens.next_token_loss(model, ids).mean(), expected.detach())
    assert lens.next_token_loss(model, ids[:, :2]).shape == (2, 1)
    with pytest.raises(ValueError, match=r"length >= 2\): got \(2, 1\)"):
        lens.effect(model, ids[:, :1], lens.zero("mixer"))


def test_a_bootstrap_interval_of_thirty_holds_the_mean_nine_times_of_ten():
    draws = torch.randn(200, 30, generator=torch.Generator().manual_seed(0))
    low, high = lens.bootstrap(draws.T, level=0.95)
    assert low.shape == (200,) and ((low < 0) & (high > 0)).float().mean() > 0.9
    assert (high - low).mean() == pytest.approx(2 * 1.96 / 30**0.5, rel=0.1)
    narrow = lens.bootstrap(draws.T, level=0.5)
    assert (narrow[0] > low).all() and (narrow[1] < high).all()
    for level in (0, 1, 95):
        with pytest.raises(ValueError, match=rf"level must be in \(0, 1\): got {level}"):
            lens.bootstrap(draws, level=level)


def test_a_bootstrap_interval_leans_where_the_values_do():
    """What BCa has before the percentiles of the same draws, whose longer arm is hardly longer."""
    draws = torch.empty(300, 20).exponential_(generator=torch.Generator().manual_seed(0)).T
    low, high = lens.bootstrap(draws)
    longer = ((high - draws.mean(0)) / (draws.mean(0) - low)).median()
    picked = torch.randint(20, (2000, 20), generator=torch.Generator().manual_seed(1))
    means = draws[picked].mean(1)
    plain = ((means.quantile(0.975, 0) - draws.mean(0)) / (draws.mean(0) - means.quantile(0.025, 0))).median()
    assert longer > 1.4 and plain < 1.3


def test_a_bootstrap_interval_scales_and_mirrors_and_each_number_has_that_of_its_own():
    values = torch.randn(9, 4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    low, high = lens.bootstrap(values)
    assert low.shape == high.shape == (4, 2)
    torch.testing.assert_close(torch.stack(lens.bootstrap(4 * values)), torch.stack([4 * low, 4 * high]))
    near = dict(rtol=0, atol=0.02)  # a shift rounds, and ties between draws fall otherwise
    torch.testing.assert_close(torch.stack(lens.bootstrap(values + 1)), torch.stack([low + 1, high + 1]), **near)
    torch.testing.assert_close(torch.stack(lens.bootstrap(-values)), torch.stack([-high, -low]), **near)
    torch.testing.assert_close(torch.stack(lens.bootstrap(values[:, 1, 1])), torch.stack([low[1, 1], high[1, 1]]))
    assert not torch.equal(lens.bootstrap(values, seed=1)[0], low) and torch.equal(lens.bootstrap(values)[0], low)


def test_of_equal_values_the_interval_is_that_value_and_of_one_there_is_none():
    values = torch.tensor([[0.5, 1.0], [0.5, 3.0], [0.5, 2.5]])
    low, high = lens.bootstrap(values)
    assert low[0] == high[0] == 0.5 and low[1] < values[:, 1].mean() < high[1]
    assert all(end.shape == (3,) and end.isnan().all() for end in lens.bootstrap(torch.ones(1, 3)))
    assert all(end.shape == () and end == 0 for end in lens.bootstrap(torch.zeros(4)))
    low, high = lens.bootstrap(torch.tensor([1.0, 2.0]))
    assert 1 <= low < 1.5 < high <= 2
