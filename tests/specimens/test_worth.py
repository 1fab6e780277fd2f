"""A part's worth is the difference it says; a part that gives a constant is worth nothing, though zeroing it costs."""

from dataclasses import replace

import pytest
import torch
from lens_planted import V, remembers_by_attention, remembers_by_state
from variants import BASE, VARIANTS, make_model, random_ids

from zamba_lab import lens
from zamba_lab.lens.effect import DIRECTIONS
from zamba_lab.specimens.names import Names
from zamba_lab.specimens.retrieval import retrieval
from zamba_lab.specimens.worth import HOWS, TOP, worth

IDS, OTHERS = random_ids(BASE, b=5, l=16), random_ids(BASE, b=5, l=16, seed=3)


def some_names(ids: torch.Tensor, seed: int = 0) -> Names:
    first, repeated = torch.rand(2, len(ids), ids.shape[1] - 1, generator=torch.Generator().manual_seed(seed)) < 0.3
    repeated[0] = False  # a document without
    return Names(first, repeated & ~first, first.sum(1).float(), (repeated & ~first).sum(1).float())


NAMES = some_names(IDS)


def found(table, **which):
    (row,) = [row for row in table if all(row[key] == value for key, value in which.items())]
    return row


def test_each_row_is_the_difference_of_losses_and_its_controls_those_of_the_effect():
    model = make_model(BASE)
    table = worth(model, IDS, OTHERS, NAMES, [(0, 1), (2, 3)], controls=2)
    whole = lens.next_token_loss(model, IDS)
    for which, one in {
        ("invocation", 1, None, "mean"): lens.mean("invocation", 1, OTHERS),
        ("invocation", None, None, "resample"): lens.resample("invocation", None, OTHERS),
        ("mixer", 3, None, "zero"): lens.zero("mixer", 3),
        ("head", 2, 3, "mean"): lens.mean("head", 2, OTHERS, head=3),
        ("blocks A and B swapped", None, None, "rewired"): lens.swap_blocks(),
    }.items():
        row = found(table, **dict(zip(("part", "where", "head", "how"), which)))
        change = lens.next_token_loss(lens.intervene(model, one), IDS) - whole
        assert row["loss"]["change"]["mean"] == pytest.approx(float(change.mean()), rel=1e-5)
        low, high = lens.bootstrap(change.mean(1))
        assert (row["loss"]["change"]["low"], row["loss"]["change"]["high"]) == pytest.approx(
            (float(low), float(high)), rel=0.1
        )  # of 5, a last bit decides
        names = (change * NAMES.repeated).sum(1)[1:] / NAMES.n_repeated[1:]
        assert row["repeated names"]["change"]["mean"] == pytest.approx(float(names.mean()), rel=1e-5)
        assert row["repeated names"]["change"]["n"] == 4
        for direction in DIRECTIONS if which[3] != "zero" else ():
            control = lens.effect(model, IDS, one, controls=2, direction=direction).control_change.mean()
            assert row["loss"][direction]["change"]["mean"] == pytest.approx(float(control), rel=1e-4)
            assert row["loss"][direction]["beyond"]["mean"] == pytest.approx(float(change.mean() - control), rel=1e-4, abs=1e-6)
    heads = found(table, part=TOP, how="mean")
    both = [lens.mean("head", a, OTHERS, head=h) for a, h in ((0, 1), (2, 3))]
    change = lens.next_token_loss(lens.intervene(model, *both), IDS) - whole
    assert heads["heads"] == [[0, 1], [2, 3]] and heads["loss"]["change"]["mean"] == pytest.approx(float(change.mean()), rel=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_part_of_every_kind_of_model_has_a_row_and_what_is_not_there_has_none(name):
    model = make_model(VARIANTS[name])
    c = model.config
    table = worth(model, IDS[:3, :8], OTHERS[:3, :8], some_names(IDS[:3, :8]), controls=0)
    parts = {row["part"] for row in table if row["how"] == "mean"}
    assert parts == {part for part in ("invocation", "adapter", "concat", "head", "mixer") if part in lens.parts(c)}
    for part in parts:
        for how in HOWS:
            rows = [row for row in table if row["part"] == part and row["how"] == how]
            per = c.attn_heads if part == "head" else 1
            assert len(rows) == lens.count(c, part) * per + (part != "head" and lens.count(c, part) > 1)
    assert all(row["loss"]["change"]["mean"] is not None for row in table)
    assert any(row["part"].startswith("blocks") for row in table) == (c.n_shared_blocks > 1)


def test_a_part_that_always_gives_one_vector_is_worth_nothing_though_zeroing_it_costs():
    base = make_model(BASE)
    dead = lens.intervene(base, lens.mean("invocation", None, random_ids(BASE, b=6, l=16, seed=5)))
    table = worth(dead, IDS, OTHERS, NAMES, controls=1)
    for how in ("mean", "resample"):
        row = found(table, part="invocation", where=None, how=how)
        assert abs(row["loss"]["change"]["mean"]) < 1e-9 and abs(row["loss"]["own"]["change"]["mean"]) < 1e-9
    assert abs(found(table, part="invocation", where=None, how="zero")["loss"]["change"]["mean"]) > 1e-2
    live = found(worth(base, IDS, OTHERS, NAMES, controls=0), part="invocation", where=None, how="mean")
    assert abs(live["loss"]["change"]["mean"]) > 1e-2


def test_a_planted_head_that_looks_names_up_is_what_a_repetition_is_worth():
    model = remembers_by_attention()
    ids = lens.repeated_tokens(model, length=10, count=6)
    again = torch.zeros(6, ids.shape[1] - 1, dtype=torch.bool)
    again[:, -9:] = True
    none = torch.zeros_like(again)
    names = Names(none, again, torch.zeros(6), torch.full((6,), 9.0))
    others = torch.randint(V, ids.shape, generator=torch.Generator().manual_seed(1))
    row = found(worth(model, ids, others, names, [(0, 0)], controls=2), part=TOP, how="mean")["repeated names"]
    assert row["change"]["low"] > 1 and row["change"]["mean"] > 5 * abs(row["isotropic"]["change"]["mean"])
    assert row["isotropic"]["beyond"]["low"] > 0


@pytest.mark.parametrize("make, part", [(remembers_by_state, "ssm"), (remembers_by_attention, "kv")])
def test_retrieval_is_lost_with_the_memory_that_carries_it(make, part):
    rows = retrieval(make(), torch.arange(V).repeat(3), (3, 12), count=8, lead=6)
    assert [row["distance"] for row in rows] == [3, 12]
    for row in rows:
        assert row["recall"]["low"] > 1
        assert row[part]["share"]["mean"] == pytest.approx(1, abs=0.1)
        assert row["ssm" if part == "kv" else "kv"]["share"]["mean"] == pytest.approx(0, abs=0.1)


def test_what_recalls_nothing_has_no_shares_and_what_has_no_memory_no_row():
    filler = torch.arange(BASE.vocab_size).repeat(2)
    (row,) = retrieval(make_model(VARIANTS["pure mamba2"]), filler, (4,), count=3)
    assert set(row) == {"distance", "recall", "ssm", "conv"} and (row["recall"]["low"] or 0) <= 0 and row["ssm"]["share"] is None
    (row,) = retrieval(make_model(replace(BASE, d_conv=0)), filler, (4,), count=3)
    assert "conv" not in row
