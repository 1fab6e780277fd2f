"""The studies that come with the lab: their results are there, whole, and say what their reports say."""

import itertools
import json
import re
import statistics
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from ablate.records import drawn
from ablate.tiny import Before, study

from zamba_lab.ablate import Store, flags, plan, planning, read_study, report, stored
from zamba_lab.cli import main

ROOT = Path(__file__).parents[2]


class Dated(Before):
    """A task whose data depend on the machine."""

    def facts(self):
        return super().facts() | {"python": "3.99", "crc32": 1}


def test_every_study_that_comes_with_the_lab_can_be_read_and_planned_by_its_name(capsys):
    assert planning.stored_names()
    for name in planning.stored_names():
        assert read_study(planning.study_file(name)).name == name
        assert main(["ablate", "plan", name]) == 0 and name in capsys.readouterr().out
    assert main(["ablate", "plan", "nosuch"]) == 2
    assert "or one of " + ", ".join(planning.stored_names()) in capsys.readouterr().err


@pytest.mark.parametrize("name", ["quick", "real-text"])
def test_what_comes_with_the_lab_is_whole_and_its_report_says_what_the_store_says(name):
    found = report(*stored(name))
    assert found.missing == 0 and len(found.claims) == len(found.study.claims) > 0
    assert {cell["host"] for cells in found.cells.values() for cell in cells.values()} == {""}
    written = (planning.STUDIES / name / "report.md").read_text()
    assert found.sections["claims"] in written and found.sections["rates"] in written
    with pytest.raises(ValueError, match="no results of 'full' come with the lab"):
        stored("full")


# of a study: answers over the study; by itself: confirmed, refuted, unclear or none
@pytest.mark.parametrize(
    "name, answers, alone", [("quick", {"unclear": 5, "no answer": 6}, (3, 0, 8)), ("real-text", {"unclear": 8}, (1, 4, 3))]
)
def test_so_many_claims_held_and_the_pages_and_the_notebook_say_that_none_did(name, answers, alone):
    found = report(*stored(name)).claims
    assert Counter(one.answer for one in found) == answers
    assert tuple([one.alone for one in found].count(word) for word in ("confirmed", "refuted", "unclear")) == alone
    said = " ".join((ROOT / "docs" / "ablations.md").read_text(encoding="utf-8").split())
    assert said.count("none can be confirmed over the study") == 2
    notebook = (ROOT / "notebooks" / "07_architecture_ablations.ipynb").read_text(encoding="utf-8")
    assert "one claim is confirmed (the transformer is worse by more than 0.014), four are refuted, and three are unclear" in notebook


@pytest.mark.parametrize("name", ["quick", "real-text"])
def test_the_best_rates_of_the_stored_studies_lie_at_the_edge_as_their_reports_say(name):
    found = report(*stored(name))
    assert set(found.plan.edges.values()) <= {"lowest", "highest"} and len(found.plan.edges) == len(found.study.every_arm)
    assert f"Of {len(found.plan.edges)} arms {len(found.plan.edges)} do best at an edge" in found.sections["rates"]


@pytest.mark.parametrize("name", ["quick", "real-text"])
def test_every_number_about_a_claim_is_that_of_a_recomputation_from_the_cells(name):
    """With other code: pandas-free lists, statistics, and all sign flips by itertools."""
    found = report(*stored(name))
    for row in found.claims:
        (arm, than), metric, t = (row.claim.arm, row.claim.than), row.claim.metric, row.claim.threshold
        cells = found.cells

        def of(record, metric=metric):
            if metric == "steps":
                return record["solved_at"] or 400
            return {"accuracy": record["accuracy"], "loss": record["held_out_loss"]}.get(metric) or json.loads(record["slices"])[metric]

        d = [of(cells[arm][seed]) - of(cells[than][seed]) for seed in sorted(cells[than])]
        assert (row.mean, row.median) == (pytest.approx(statistics.fmean(d)), pytest.approx(statistics.median(d)))
        assert (row.low, row.high) == (min(d), max(d)), "six seeds: the least and the greatest"

        def p(values):
            sums = [sum(sign * value for sign, value in zip(signs, values)) for signs in itertools.product((1, -1), repeat=len(values))]
            return sum(one >= sums[0] - 1e-9 for one in sums) / len(sums)

        if row.claim.direction == "equal":
            wilks = ((1 - t) / (1 - min(max(map(abs, d)), t))) ** len(d)
            expected = max(p([one + t for one in d]), p([t - one for one in d]), wilks)
        else:
            sign = -1 if row.claim.direction == "less" else 1
            expected = p([sign * one - t for one in d])
        assert row.p == pytest.approx(expected)


def test_a_report_of_one_that_comes_with_the_lab_leaves_the_place_of_a_store_free(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["ablate", "report", "real-text"]) == 0 and "by itself" in capsys.readouterr().out
    assert sorted(file.name for file in (tmp_path / "runs" / "real-text-report").iterdir()) == ["report.html", "report.md"]
    Store(tmp_path / "runs" / "real-text")


def test_results_given_away_name_no_machine_and_say_the_same(tmp_path):
    made_up, store = study(), Store(tmp_path / "own")
    drawn(made_up, {"base": [0.5, 0.6], "conv=off": [0.4, 0.3]}, store)
    given = store.export(tmp_path / "given", [one.cell.address for one in plan(made_up).cells])
    assert [row["host"] for row in given.query("select distinct host from cells")] == [""]
    assert len(list(given.cells.iterdir())) == 1 and report(made_up, given).markdown() == report(made_up, store).markdown()
    with pytest.raises(ValueError, match="a new folder"):
        store.export(tmp_path / "given", [])


def test_results_on_data_of_another_machine_are_read_and_not_gone_on_with(tmp_path):
    there = study(task=Dated())
    store = Store(tmp_path / "store")
    drawn(there, {"base": [0.5, 0.6], "conv=off": [0.4, 0.3]}, store)
    here = type("Here", (Dated,), {"facts": lambda self: Dated.facts(self) | {"python": "4.0", "crc32": 2}})()
    assert plan(replace(there, task=here)).cells[0].cell.address != plan(there).cells[0].cell.address
    read = replace(there, task=planning.task_of_results(here, store))
    assert report(read, store).missing == 0 and read.task.vocab_size == there.task.vocab_size
    with pytest.raises(ValueError, match="data that is not here .python 3.99, crc32 1"):
        read.task.batch(0, 0, 1)
    assert planning.task_of_results(Dated(), store) == Dated() and planning.task_of_results(Before(), store) == Before()


def shown_studies() -> dict[str, str]:
    """The studies in the README and in docs/, by the page."""
    pages = {page.name: page.read_text(encoding="utf-8") for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
    blocks = {name: re.findall(r"```yaml\n(# study.yaml\n.*?)```", text, re.DOTALL) for name, text in pages.items()}
    return {name: studies[0] for name, studies in blocks.items() if studies}


@pytest.mark.parametrize("page", shown_studies())
def test_the_study_that_is_shown_plans_cleanly_and_can_confirm_its_claim(page, tmp_path, capsys):
    """Every arm is matched, nothing is flagged, and with the stored results of these cells the claim holds."""
    (tmp_path / "study.yaml").write_text(shown_studies()[page], encoding="utf-8")
    made = read_study(tmp_path / "study.yaml")
    assert main(["ablate", "plan", str(tmp_path / "study.yaml"), "--store", str(tmp_path / "none")]) == 0
    said = capsys.readouterr().out
    assert f"{len(made.every_arm)} arms, matched by params" in said
    assert "could not be matched" not in said and "(!)" not in said and flags(made) == []
    assert main(["ablate", "plan", str(tmp_path / "study.yaml"), "--store", str(tmp_path / "none"), "--json"]) == 0
    assert all(abs(arm["off"]) <= 0.01 for arm in json.loads(capsys.readouterr().out)["arms"])
    quick, store = stored("quick")
    of_the_tokenizer = {name: getattr(quick.base, name) for name in ("max_context", "pad_token_id", "bos_token_id", "eos_token_id")}
    assert replace(made.base, **of_the_tokenizer) == quick.base
    # what was stored was tuned otherwise: the same cells count
    tuned = dict(rates=quick.rates, tuning_seeds=quick.tuning_seeds, extend=0)
    results = report(replace(made, base=quick.base, gates=made.gates[:1], **tuned), store)
    assert results.claims and {result.answer for result in results.claims} == {"confirmed"}


def test_a_study_is_shown():
    assert shown_studies()
