"""The studies that come with the lab: their results are there, whole, and say what their reports say."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from ablate.records import drawn
from ablate.tiny import Before, study

from zamba_lab.ablate import Store, plan, planning, read_study, report, stored
from zamba_lab.ablate.command import too_few_seeds
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


@pytest.mark.parametrize("name, answers", [("quick", (3, 0, 8)), ("real-text", (3, 3, 2))])
def test_so_many_claims_held(name, answers):
    found = [one.answer for one in report(*stored(name)).claims]
    assert tuple(found.count(answer) for answer in ("confirmed", "not confirmed", "unclear")) == answers


def test_the_page_on_ablations_says_so():
    said = " ".join((ROOT / "docs" / "ablations.md").read_text(encoding="utf-8").split())
    assert "Three of eight claims are confirmed" in said and "Three of eleven claims are confirmed, eight are unclear" in said


def test_the_rates_of_real_text_lie_at_the_edge_as_the_notebook_says():
    rates = list(report(*stored("real-text")).plan.rates.values())
    assert (rates.count(0.006), len(rates)) == (6, 8)


def test_a_report_of_one_that_comes_with_the_lab_leaves_the_place_of_a_store_free(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["ablate", "report", "real-text"]) == 0 and "not confirmed" in capsys.readouterr().out
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
    """Every arm is matched, every family has seeds enough for a verdict, and with the stored results of these cells the claim holds."""
    (tmp_path / "study.yaml").write_text(shown_studies()[page], encoding="utf-8")
    made = read_study(tmp_path / "study.yaml")
    assert main(["ablate", "plan", str(tmp_path / "study.yaml"), "--store", str(tmp_path / "none")]) == 0
    said = capsys.readouterr().out
    assert f"{len(made.every_arm)} arms, matched by params" in said
    assert "could not be matched" not in said and "(!)" not in said and "cannot give a verdict" not in said
    assert main(["ablate", "plan", str(tmp_path / "study.yaml"), "--store", str(tmp_path / "none"), "--json"]) == 0
    assert all(abs(arm["off"]) <= 0.01 for arm in json.loads(capsys.readouterr().out)["arms"]) and too_few_seeds(made) == {}
    quick, store = stored("quick")
    of_the_tokenizer = {name: getattr(quick.base, name) for name in ("max_context", "pad_token_id", "bos_token_id", "eos_token_id")}
    assert replace(made.base, **of_the_tokenizer) == quick.base
    results = report(replace(made, base=quick.base), store)
    assert results.claims and {result.answer for result in results.claims} == {"confirmed"}


def test_a_study_is_shown():
    assert shown_studies()
