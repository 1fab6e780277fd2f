"""Padding changes nothing: under every intervention and for every lens function, padded equals unpadded, and a text resampled
from itself is no change. A function that is given a text and takes no mask, or has no entry here, fails."""

import inspect
from functools import cache, partial

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad
from variants import BASE, VARIANTS, make_model, random_ids

from zamba_lab import lens
from zamba_lab.lens.parts import adapters

GIVEN_TEXT = {"ids", "donor", "reference", "held_out", "logits", "probs", "trace", "filler"}  # arguments that may be padded
NEED_NO_MASK = {
    "overwrite": "its donor is a cache, which knows its padding",
    "transplant": "its donor is a cache, which knows its padding",
    "needles": "makes texts of equal length from one that is not padded",
    "who_remembers": "makes texts of equal length from one that is not padded",
    "head_scores": "its ids are strings of one length, said twice, without padding",
    "ssm_states": "the step sizes in the trace of a masked pass are 0 at padding",
}
LENGTHS, WIDTH, LONGER = (8, 10), 13, 20
MIXERS = ("base", "mamba1", "biases", "lora on qkv only, grouped queries", "conv of one tap")
OTHERS = ("transformer", "link into the stream", "pure mamba2")
PADDINGS = ("right", "left", "inside")


@cache
def texts(seed: int = 0, lengths: tuple[int, ...] = LENGTHS) -> list[Tensor]:
    return [random_ids(BASE, b=1, l=length, seed=seed + length) for length in lengths]


def padded(rows: list[Tensor], where: str) -> tuple[Tensor, Tensor]:
    """Rows of one width, with random ids at padding, and their mask. inside: two stretches of padding, one between tokens."""
    ids, mask = random_ids(BASE, b=len(rows), l=WIDTH, seed=99), torch.zeros(len(rows), WIDTH, dtype=torch.long)
    for i, row in enumerate(rows):
        length = row.shape[1]
        inside = [1, 2, *range(WIDTH + 1 - length, WIDTH - 1)]
        at = {"right": list(range(length)), "left": list(range(WIDTH - length, WIDTH)), "inside": inside}[where]
        ids[i, at], mask[i, at] = row[0], 1
    return ids, mask


def unpadded(ids: Tensor, mask: Tensor) -> list[Tensor]:
    return [row[keep.bool()][None] for row, keep in zip(ids, mask)]


def half_masks(mask: Tensor | None) -> tuple:
    return (None, None) if mask is None else (mask[:, :5], mask[:, 5:])


def keep_of(model, names=("resid_in", "mamba.*")) -> list[str]:
    return [f"*.{name}" for name in names] + ["invocation.*.link_out"] * bool(model.config.n_invocations)


def run_everything(m, ids, mask):
    trace = lens.run(m, ids, keep=["*.resid_out", "logits", *["*.link_out"] * bool(m.config.n_invocations)], mask=mask)
    return {f"bld {name}": trace[name] for name in trace}


def frozen(m, ids, mask):
    trace = lens.run(m, ids, keep=keep_of(m), mask=mask)
    return {"": lens.frozen_mixer(m, trace, 1, mask)(torch.stack([trace["layers.1.resid_in"], trace["layers.1.mamba.out"]]))}


def matrix(m, ids, mask):
    x = lens.mixer_matrix(m, ids, 1, mask)
    tables = {"bhqls ssm": x.ssm, "bhls shares": x.shares(), "bhpls channels": x.channels(), "bld rebuilt": x.rebuilt}
    return tables | {
        "bl constant": x.constant_share(),
        "bld apply": x.apply(x.u),
        "bsd gradient": x.gradient(last_of(ids, mask)),
        "e": torch.tensor(x.error),
    }


def last_of(ids: Tensor, mask: Tensor | None) -> int:
    return ids.shape[1] - 1 if mask is None else int(mask[0].nonzero().max())


def timeline(m, ids, mask):
    first, rest = half_masks(mask)
    _, line = lens.Timeline.start(m, ids[:, :5], first).extend(ids[:, 5:], rest)
    back, _ = line.rewind(3).extend(ids[:, 3:], None if mask is None else mask[:, 3:])
    return {"bl": torch.cat([m(ids[:, :3], None if mask is None else mask[:, :3]), back], 1).argmax(-1)}


def losses(effects) -> dict[str, Tensor]:
    return {f"bt {each.name}": each.changed for each in effects}


def fields(axes: dict[str, str], result) -> dict[str, Tensor]:
    """Tensors of a dataclass, each under its axes and its name."""
    return {f"{letters} {name}": getattr(result, name) for name, letters in axes.items()}


# name -> what is to be the same with padding, and how: by axes b (rows), l and s (tokens), t (tokens but the first)
CALLS = {
    "run": run_everything,
    "next_token_loss": lambda m, ids, mask: {"bt": lens.next_token_loss(m, ids, mask=mask)},
    "token_losses": lambda m, ids, mask: {"bt": lens.token_losses(m(ids, mask), ids, mask)},
    "logit_lens": lambda m, ids, mask: fields(
        dict(tokens="iblk", probs="iblk", divergence="ibl", loss="ibt"), lens.logit_lens(m, ids, mask=mask)
    ),
    "Timeline": timeline,
    "effect": lambda m, ids, mask: losses([lens.effect(m, ids, some_part(m), mask=mask)]),
    "constant_shares": lambda m, ids, mask: {"k": torch.tensor(lens.constant_shares(m, ids, mask))},
    "link_ratios": lambda m, ids, mask: {"k": torch.tensor(lens.link_ratios(m, ids, mask))},
    "fit_tuned_lens": lambda m, ids, mask: fields(
        dict(weight="idd", bias="id", before="i", after="i"),
        lens.fit_tuned_lens(m, ids, ids, steps=2, tokens=5, mask=mask, held_out_mask=mask),
    ),
    "switch_off_each": lambda m, ids, mask: losses(lens.switch_off_each(m, ids, mask=mask)),
    "who_carries": lambda m, ids, mask: {"pib": lens.who_carries(m, ids, (ids + 1) % 29, mask)},
}
OF_SSM = {
    "attribution": lambda m, ids, mask: (
        fields(dict(parts="iblv", remainder="blv"), lens.attribution(m, ids, mask=mask))
        | fields(dict(parts="ibl", remainder="bl"), lens.attribution(m, ids, torch.ones_like(ids), True, mask))
    ),
    "frozen_mixer": lambda m, ids, mask: {"ibld": frozen(m, ids, mask)[""]},
    "mixer_matrix": matrix,
    "layer_flow": lambda m, ids, mask: fields(
        dict(kept="bl", mixed="bhls", block="bhls", attended="bls", constant="bl", tokens="bls"), lens.layer_flow(m, ids, 1, mask)
    ),
    "rollout": lambda m, ids, mask: fields(dict(layers="ibls", total="ibls", cancellation="ibl"), lens.rollout(m, ids, mask)),
    "through_attention": lambda m, ids, mask: {"bs": lens.through_attention(m, ids, 1, last_of(ids, mask), mask)},
    "decay": lambda m, ids, mask: fields(dict(dt="iblh", half_life="iblh"), lens.decay(m, ids, mask)),
    "horizons": lambda m, ids, mask: fields(
        dict(analytic="imbh", measured="imbh", halved="imbh", reach="imbh"), lens.horizons(m, ids, (1, 2), 3, mask)
    ),
    "stream_norms": lambda m, ids, mask: {"bl": lens.stream_norms(m, ids, mask)["layers.1.resid_out"]},
    "state_norms": lambda m, ids, mask: {"iblh": lens.state_norms(m, ids, mask)},
    "state_dimensions": lambda m, ids, mask: {"iblh": lens.state_dimensions(m, ids, mask)},
    "ssm_states": lambda m, ids, mask: {"blhpn": lens.ssm_states(m, lens.run(m, ids, keep=["*.mamba.*"], mask=mask), 1)},
    "contents": lambda m, ids, mask: fields(
        dict(left="bshpn", state="bhpn", share="bhs", recall="bhs"), lens.contents(m, ids, 1, mask=mask)
    ),
}
OF_BLOCKS = {
    "attention_by_invocation": lambda m, ids, mask: {"kbhls": lens.attention_by_invocation(m, ids, 0, mask).probs},
    "attention_habits": lambda m, ids, mask: fields(
        dict(entropy="kbhl", distance="kbhl", sink="kbhl"), lens.attention_habits(m, ids, mask)
    ),
    "head_spread": lambda m, ids, mask: dict(zip(("ah share", "ah tokens"), lens.head_spread(m, ids, mask))),
    "divergence": lambda m, ids, mask: {"kkbh": lens.divergence(lens.attention_by_invocation(m, ids, 0, mask).probs, mask)},
    "drift": lambda m, ids, mask: (
        fields(dict(distance="ijb", total="b", inputs="b", adapters="b", both="b", values="ijbld"), lens.drift(m, ids, 0, "link_out", mask))
        | fields(dict(distance="ijb", values="ijbhls"), lens.drift(m, ids, 0, "attn_probs", mask))
    ),
    "score_parts": lambda m, ids, mask: fields(dict(parts="qkbhls", scores="bhls", shares="qkbh"), lens.score_parts(m, ids, 1, mask)),
    "concat_shares": lambda m, ids, mask: fields(dict(input="kbl", scores="qkibh"), lens.concat_shares(m, ids, mask)),
    "lora_effects": lambda m, ids, mask: losses(lens.lora_effects(m, ids, mask=mask)),
}
BY_ROW = {
    "link_ratios",
    "constant_shares",
    "head_spread",
    "fit_tuned_lens",
    "switch_off_each",
    "lora_effects",
    "mixer_matrix",
    "through_attention",
}  # means over rows


def some_part(m) -> lens.Intervention:
    return lens.zero("head", 1, head=0) if m.config.mixer == "attention" else lens.zero("mixer", 1)


def cut(name: str, value: Tensor, row: int, real: Tensor) -> Tensor:
    """A row's numbers at its tokens, of a tensor with the axes that `name` begins with."""
    axes = name.split(" ")[0]
    if "b" in axes:
        value = value.narrow(axes.index("b"), row, 1)
    for axis, letter in enumerate(axes):
        if letter in "ls":
            value = value.index_select(axis, real)
        elif letter == "t":
            value = value.index_select(axis, real[1:] - 1)
    return value.double()


def cases():
    for table, names in ((CALLS, (*MIXERS, *OTHERS)), (OF_SSM, MIXERS), (OF_BLOCKS, MIXERS)):
        for name in names:
            for function in table:
                needed = {"lora_effects": adapters(VARIANTS[name]), "switch_off_each": VARIANTS[name].n_invocations}
                if needed.get(function, True):
                    yield pytest.param(name, table[function], function in BY_ROW, id=f"{name}-{function}")


@pytest.mark.parametrize("name, call, by_row", list(cases()))
@torch.no_grad()
def test_padded_equals_unpadded(name, call, by_row):
    model = make_model(VARIANTS[name])
    for where in PADDINGS if name == "base" else PADDINGS[1:]:
        ids, mask = padded(texts(), where)
        batches = [(ids[i : i + 1], mask[i : i + 1]) for i in range(len(ids))] if by_row else [(ids, mask)]
        rows = [(each, i) for each, own in ((call(model, *batch), batch[0]) for batch in batches) for i in range(len(own))]
        for number, (text, (results, row)) in enumerate(zip(unpadded(ids, mask), rows)):
            expected, real = call(model, text, None), mask[number].nonzero()[:, 0]
            assert expected.keys() == results.keys() and expected
            for key, alone in expected.items():
                torch.testing.assert_close(
                    cut(key, results[key], row, real),
                    alone.double(),
                    rtol=1e-7,
                    atol=1e-9,
                    msg=lambda m: f"{where}, row {number}, {key}: {m}",
                )


def test_every_function_that_is_given_a_text_takes_a_mask_and_is_held_to_it():
    held = {*CALLS, *OF_SSM, *OF_BLOCKS, "mean", "resample", "path", "coverage"}  # the last four below, and in test_coverage
    for name in lens.__all__:
        thing = getattr(lens, name)
        if inspect.isfunction(thing):
            arguments = set(inspect.signature(thing).parameters)
            if arguments & GIVEN_TEXT and name not in NEED_NO_MASK:
                assert "mask" in arguments and name in held, (
                    f"{name} is given {arguments & GIVEN_TEXT}: it takes a mask, and has a row here"
                )
    for method in (lens.Timeline.start, lens.Timeline.extend):
        assert "mask" in inspect.signature(method).parameters


def every_intervention(model, ids, mask, shift: int):
    """One of each kind that the model has, the memory ones at the row's fourth token. Donors are read with their own mask."""
    c, at = model.config, 3 + shift
    other = (ids + 1) % c.vocab_size
    donor = model.extend(other[:, :at], mask=None if mask is None else mask[:, :at])[1]
    for part in lens.parts(c):
        head = 1 if part == "head" else None
        yield lens.zero(part, 0, head=head)
        yield lens.mean(part, None, other, head=head, mask=mask)
        yield lens.resample(part, 0, other, head=head, mask=mask)
    for part in ("ssm", "conv", "kv"):
        if part == "kv" and (c.n_invocations or c.mixer == "attention") or part != "kv" and c.mixer != "attention":
            yield from (lens.wipe(part, 0, at), lens.freeze(part, None, at), lens.overwrite(part, 0, at, donor))
    if c.n_invocations:
        yield from (lens.swap_blocks(0, c.n_shared_blocks - 1), lens.one_block(), lens.untie())
        if adapters(c):
            yield lens.permute_adapters(range(c.n_invocations)[::-1])
        if c.link_into == "mixer":
            yield from (lens.path(0, "z"), lens.path(c.n_invocations - 1, ("x", "z"), other, mask))


@pytest.mark.parametrize("name", [*MIXERS, *OTHERS])
@pytest.mark.parametrize("where", ["right", "left"])
@torch.no_grad()
def test_under_every_intervention_padded_equals_unpadded(name, where):
    model, text = make_model(VARIANTS[name]), texts()[0]
    ids, mask = padded([text], where)
    real, shift = mask[0].nonzero()[:, 0], WIDTH - text.shape[1] if where == "left" else 0
    for one, other in zip(every_intervention(model, ids, mask, shift), every_intervention(model, text, None, 0)):
        found, expected = lens.effect(model, ids, one, mask=mask, controls=1), lens.effect(model, text, other, controls=1)
        for measured, alone in ((found.baseline, expected.baseline), (found.changed, expected.changed)):
            torch.testing.assert_close(measured[:, real[1:] - 1], alone, rtol=1e-7, atol=1e-9, msg=lambda m: f"{other.name}: {m}")
        torch.testing.assert_close(found.by_prompt(found.change), expected.by_prompt(expected.change), rtol=1e-7, atol=1e-9)
        assert found.control[..., real[1:] - 1].isfinite().all()


def of_itself(model, ids, mask, own_mask):
    """Every intervention that gives a part its own value: of the same text, padded alike."""
    c, at = model.config, 6
    for part in lens.parts(c):
        yield lens.resample(part, None, ids, head=0 if part == "head" else None, mask=own_mask)
    if c.n_invocations and c.link_into == "mixer":
        yield lens.path(1, ("z", "x"), ids, own_mask)
    cache = model.extend(ids[:, :at], mask=mask[:, :at])[1]
    for part in ("ssm", "conv") * (c.mixer != "attention") + ("kv",) * bool(c.n_invocations or c.mixer == "attention"):
        yield lens.overwrite(part, None, at, cache)


@pytest.mark.parametrize("name", [*MIXERS, *OTHERS])
@pytest.mark.parametrize("where", PADDINGS)
@torch.no_grad()
def test_resampling_from_oneself_changes_nothing_whether_or_not_the_donor_is_said_to_be_padded(name, where):
    model, (ids, mask) = make_model(VARIANTS[name]), padded(texts(), where)
    for own_mask in (None, mask):
        for one in of_itself(model, ids, mask, own_mask):
            found = lens.effect(model, ids, one, mask=mask)
            for change in (found.change, *found.control_change):
                assert found.by_prompt(change).abs().max() < 1e-9, one.name
    for each in lens.switch_off_each(model, ids, "resample", ids, mask, mask):
        assert each.by_prompt(each.change).abs().max() < 1e-9, each.name


@pytest.mark.parametrize("where", PADDINGS)
@torch.no_grad()
def test_a_text_is_its_own_reference_with_the_mask_it_runs_with(where):
    model, (ids, mask) = make_model(BASE), padded(texts(), where)
    own, named = (lens.effect(model, ids, lens.mean("mixer", 0, ids, mask=m), mask=mask, controls=0) for m in (None, mask))
    assert torch.equal(own.by_prompt(own.changed), named.by_prompt(named.changed))
    longer = random_ids(BASE, b=2, l=LONGER)
    of_other = lens.effect(model, ids, lens.mean("mixer", 0, longer), mask=mask, controls=0)
    every = lens.effect(model, ids, lens.mean("mixer", 0, longer, mask=torch.ones_like(longer)), mask=mask, controls=0)
    torch.testing.assert_close(of_other.by_prompt(of_other.changed), every.by_prompt(every.changed))


@torch.no_grad()
def test_one_donor_for_all_rows_is_laid_beside_each_rows_padding():
    model, (ids, mask) = make_model(BASE), padded(texts(), "left")
    donor = random_ids(BASE, b=1, l=LONGER, seed=5)
    shared = lens.intervene(model, lens.resample("mixer", 1, donor))(ids, mask)
    full = torch.cat([mask, torch.ones(2, LONGER - WIDTH, dtype=torch.long)], 1)
    apart = lens.intervene(model, lens.resample("mixer", 1, donor.expand(2, -1), mask=full))(ids, mask)
    torch.testing.assert_close(shared[mask.bool()], apart[mask.bool()], rtol=0, atol=1e-12)


@torch.no_grad()
def test_a_padded_prompt_is_decoded_under_an_intervention_as_the_prompt_is():
    model, (ids, mask) = make_model(BASE), padded(texts(), "left")
    donor = random_ids(BASE, b=2, l=LONGER, seed=5)
    one = lens.intervene(model, lens.resample("mixer", 1, donor), lens.zero("invocation", 0))
    _, cache = one.extend(ids, mask=mask)
    for step in range(3):
        logits, cache = one.extend(ids[:, step : step + 1], cache)
    both = one(torch.cat([ids, ids[:, :3]], 1), pad(mask, (0, 3), value=1))
    torch.testing.assert_close(logits[:, 0], both[:, -1], rtol=0, atol=1e-9)


def test_a_loss_without_a_token_before_it_or_of_padding_is_0():
    model, (ids, mask) = make_model(BASE), padded(texts(), "inside")
    losses = lens.next_token_loss(model, ids, mask=mask)
    real = mask.bool()
    known = real[:, 1:] & (real.cumsum(1) > 0)[:, :-1]
    assert torch.equal(losses != 0, known)
    found = lens.effect(model, ids, lens.resample("mixer", 0, ids), mask=mask)
    assert found.change.abs().max() == 0 and found.control_change.abs().max() == 0


def test_a_mask_of_another_shape_is_refused():
    ids = random_ids(BASE)
    for make in (partial(lens.mean, "mixer", 0), partial(lens.resample, "mixer", 0), partial(lens.path, 0, "z")):
        with pytest.raises(ValueError, match=r"mask must have the shape of the text that it is of: got \(2, 18\)"):
            make(ids, mask=torch.ones(2, 18))


@pytest.mark.parametrize("how", ["mean", "resample"])
def test_switching_off_each_reads_a_reference_beside_padded_prompts_as_the_interventions_do(how):
    model, (ids, mask) = make_model(BASE), padded(texts(), "left")
    one_for_all = random_ids(BASE, b=1, l=LONGER, seed=3)
    for reference in ((ids + 1) % 29, *[one_for_all] * (how == "resample")):
        make = getattr(lens, how)
        for each, part in zip(lens.switch_off_each(model, ids, how, reference, mask)[::4], lens.SWITCHED):
            expected = lens.next_token_loss(lens.intervene(model, make(part, 0, reference)), ids, mask=mask)
            torch.testing.assert_close(each.changed, expected, rtol=0, atol=1e-12, equal_nan=True)
