"""What is planted in a design or in its cells leads to the right sentence: dead bases, ceilings, edges, claims out of reach."""

from dataclasses import replace

import numpy as np
import pytest
import yaml
from ablate.records import drawn, made
from ablate.tiny import FILE, TRAIN, Before, study

from zamba_lab.ablate import Claim, Gate, Store, flags, plan, read_study, report, run_cell
from zamba_lab.ablate.claims import RATE
from zamba_lab.cli import main

SEEDS = tuple(range(7))
CLAIM = Claim("no taps costs something", "conv=off", direction="less", expected=-0.2, scatter=0.02)
UP = np.linspace(0, 0.02, 7)
OTHER = UP - 0.2 - 0.1 * UP[::-1]


def asked(**changes):
    return study(**{"seeds": SEEDS, "axes": {"conv": [False], "d_state": [8]}, "metrics": ("accuracy",), "claims": (CLAIM,)} | changes)


def answered(one, tmp_path, base, other=None):
    store = Store(tmp_path / "store")
    drawn(one, {"base": base, "conv=off": base - 0.2 - 0.1 * UP if other is None else other, "d_state=8": base}, store)
    return report(one, store)


def test_an_alive_base_lets_the_claim_be_answered_and_a_dead_one_does_not(tmp_path):
    one = asked(gates=(Gate("the base recalls", "accuracy", above=0.5),))
    alive, dead = answered(one, tmp_path / "a", 0.6 + UP), answered(one, tmp_path / "b", 0.48 + UP * 1.5)
    assert [row.answer for row in alive.claims] == ["confirmed"] and [gate.passed for gate in alive.gates] == [True]
    (row,), (gate,) = dead.claims, dead.gates
    assert (row.answer, row.alone, row.why) == ("no answer", "unclear", "the gate fails: the base recalls, base")
    assert (gate.passed, gate.held) == (False, 2)
    text = dead.markdown()
    assert text.index("## Gates") < text.index("## Claims") and "**fails**" in text and "no answer: the gate fails" in text
    enough = answered(replace(one, gates=(Gate("some recall", "accuracy", above=0.5, share=2 / 7),)), tmp_path / "c", 0.48 + UP * 1.5)
    assert [row.answer for row in enough.claims] == ["confirmed"]


def test_a_gate_of_another_arm_or_of_each_decides_about_the_claims_that_it_is_in(tmp_path):
    claims = (CLAIM, Claim("nor does a state", "d_state=8", direction="differs"))
    one = asked(claims=claims, gates=(Gate("no arm is at chance", "accuracy", above="chance", arm="each"),))
    found = answered(one, tmp_path, 0.6 + UP, 0.05 + UP * 0.1)
    assert [row.why for row in found.claims] == ["the gate fails: no arm is at chance, conv=off", ""]
    with pytest.raises(ValueError, match="a gate is about arms of the study: no 'conv=on'"):
        asked(gates=(Gate("a", "accuracy", above=0.5, arm="conv=on"),))
    with pytest.raises(ValueError, match="the task has no plateau"):
        asked(gates=(Gate("a", "accuracy", above="plateau"),))


def test_a_ceiling_gives_no_answer_whatever_p_is(tmp_path):
    """All seeds solve it in both arms, the one a little better than the other in each: no difference of what they can do."""
    equal = Claim("alike", "conv=off", direction="equal", threshold=0.05, symmetric=True)
    found = answered(asked(claims=(CLAIM, equal)), tmp_path, 0.993 + UP / 10, 0.991 + UP / 10).claims
    assert [row.p for row in found] == [pytest.approx(1 / 128)] * 2
    assert {(row.answer, row.why) for row in found} == {("no answer", "accuracy cannot tell: in 7 of 7 seeds all had solved it")}


def test_a_trend_is_the_rise_from_the_first_arm_to_the_last(tmp_path):
    one = asked(claims=(Claim("it falls", trend=("base", "d_state=8", "conv=off"), direction="less", threshold=0.15),))
    store = Store(tmp_path / "store")
    drawn(one, {"base": 0.6 + UP, "d_state=8": 0.5 + UP, "conv=off": 0.4 + 0.9 * UP}, store)
    (row,) = report(one, store).claims
    assert (
        row.mean == pytest.approx(-0.2 - 0.001)
        and row.answer == "confirmed"
        and "base to conv=off: less accuracy by 0.15" in str(report(one, store))
    )


RATES = (0.001, 0.002, 0.004, 0.01)


def tuned(one, store, best):
    """Run the tuning of a study on paper: each arm's best rate is the one nearest to `best`."""
    for planned in plan(one, store).left(store):
        if planned.tuning:
            store.add(made(planned.cell, 0.5 - 0.1 * abs(np.log(planned.cell.train.lr / best[planned.arm]))))


def test_a_rate_at_an_edge_is_followed_for_every_arm_until_it_is_inside_and_else_said(tmp_path):
    one = asked(rates=RATES, tuning_seeds=(1000, 1001), extend=2, gates=(Gate("the rate is inside", RATE, arm="each"),))
    store, best = Store(tmp_path / "store"), {"base": 0.004, "conv=off": 0.02, "d_state=8": 1.0}
    todo = plan(one, store)
    while any(planned.tuning for planned in todo.left(store)):
        tuned(one, store, best)
        todo = plan(one, store)
    ladder = [*RATES, 0.025, 0.0625]
    assert all(list(todo.tried[arm]) == ladder for arm in best), "not the same trials for every arm"
    assert (todo.rates, todo.edges) == (
        {"base": 0.004, "conv=off": 0.025, "d_state=8": 0.0625},
        {"base": "", "conv=off": "", "d_state=8": "highest"},
    )
    for planned in todo.left(store):
        store.add(made(planned.cell, {"base": 0.6, "conv=off": 0.4, "d_state=8": 0.5}[planned.arm] + 0.001 * planned.seed))
    found = report(replace(one, claims=(CLAIM, replace(CLAIM, arm="d_state=8"))), store)
    assert [row.answer for row in found.claims] == ["confirmed", "no answer"]
    assert "**Of 3 arms 1 do best at an edge of the rates" in found.sections["rates"] and "| **the highest** |" in found.sections["rates"]


def test_fixed_steps_are_all_made_and_the_time_to_solve_is_kept_and_old_addresses_stay(tmp_path):
    one = study(solved=0.05, also={"same": Before()}, metrics=("steps", "accuracy.same", "cost.invocation"))
    cells = [next(planned.cell for planned in plan(replace(one, until=until)).cells) for until in ("solved", "steps")]
    records = [run_cell(cell, tmp_path / cell.until)[0] for cell in cells]
    assert [record["steps"] for record in records] == [3, TRAIN.steps] and [record["solved_at"] for record in records] == [3, 3]
    assert all(np.isfinite(yaml.safe_load(record["measures"])["cost.invocation"]) for record in records)
    plain = next(planned.cell for planned in plan(study()).cells)
    assert "until" not in plain.facts["rules"] and "costs" not in plain.facts["rules"]
    assert cells[0].address != cells[1].address != plain.address
    with pytest.raises(ValueError, match="no task 'other' in also, which has same"):
        replace(one, metrics=("accuracy.other",))


def written(tmp_path, **changes):
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump({**FILE, "task": "mqar", "metrics": ["steps"], "train": {"steps": 9, "evaluate_every": 3}} | changes))
    return file


FLAGGED = {
    "no gate": {},
    "no learning rate is tuned": {},
    "2 seeds cannot give a verdict, whatever they show: so many contrasts take 6 or more": {},
    "2 rates over a factor of 5: 4 over 10": {"rates": [0.001, 0.005]},
    "a rate is chosen on 1 seed only": {"rates": [0.001, 0.005], "tuning_seeds": [7]},
    "compares models stopped at different steps: ask for steps": {"metrics": ["accuracy"]},
    '"a" cannot be confirmed by 2 seeds, whatever they show: it takes 6 or more': {"claims": [{"text": "a", "arm": "rope=off"}]},
    'the power of "a" is not known': {"claims": [{"text": "a", "arm": "rope=off"}], "seeds": 6},
    'the power of "a" with 6 seeds is 0.': {"claims": [{"text": "a", "arm": "rope=off", "expected": 0.1, "scatter": 0.1}], "seeds": 6},
}


@pytest.mark.parametrize("words", FLAGGED)
def test_what_is_wrong_with_a_design_is_said_with_its_line_before_anything_runs(words, tmp_path, capsys):
    file = written(tmp_path, **FLAGGED[words])
    assert main(["ablate", "plan", str(file), "--store", str(tmp_path / "none")]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if words in line)
    place = next(flag.place for flag in flags(read_study(file)) if words in flag.words)
    number = int(line.removeprefix(f"{file}:").split(":")[0])
    assert not place or place[0] in file.read_text().splitlines()[number - 1] or file.read_text().splitlines()[number - 1].startswith("- ")


REFUSED = {
    "a study has an outcome": {"metrics": []},
    "two seeds differ by at most 9 in steps: got threshold 9": {
        "claims": [{"text": "a", "arm": "rope=off", "metric": "steps", "threshold": 9}]
    },
    "a gate has one of above and below": {"gates": [{"text": "a", "metric": "accuracy"}]},
    "rate_inside needs rates": {"gates": [{"text": "a", "metric": "rate_inside"}]},
    "a level is a number or one of plateau, chance, margin": {"gates": [{"text": "a", "metric": "accuracy", "above": "high"}]},
    "cost.PART is of a part: ": {"metrics": ["cost.nothing"]},
    "a claim is about an arm, or has a trend of three or more arms": {"claims": [{"text": "a", "trend": ["base", "rope=off"]}]},
    "until must be one of solved, steps": {"until": "never"},
    "extend is 0 to 4, and continues two rates or more": {"extend": 2},
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_study_that_asks_for_what_there_is_not_is_refused_with_its_line(words, tmp_path):
    with pytest.raises(ValueError, match=rf"study.yaml:\d+: .*{words}"):
        read_study(written(tmp_path, **REFUSED[words]))
