"""From a store to an answer: verdicts on planted results, and a report that says what is missing."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml
from ablate.records import drawn, made
from ablate.tiny import FILE as tiny_file
from ablate.tiny import study

from zamba_lab.ablate import Claim, Match, Store, plan, report
from zamba_lab.ablate.tables import plain
from zamba_lab.ablate.verdicts import contrasts
from zamba_lab.cli import main
from zamba_lab.report import as_html, curve, figures, page

SEEDS = tuple(range(8))
CLAIMS = (
    Claim("memory is needed", "d_state=8", direction="less", threshold=0.1),
    Claim("positions do nothing", "rope=off", direction="equal", threshold=0.05, symmetric=True),
    Claim("adapters help", "lora_rank=0", direction="less"),
    Claim("no taps is better", "conv=off", threshold=0.02),
    Claim("no taps costs a tenth", "conv=off", direction="less", threshold=0.1),
)


def planted(tmp_path):
    made_up = study(
        seeds=SEEDS, axes={"d_state": [8], "rope": [False], "lora_rank": [0], "conv": [False]}, claims=CLAIMS, match=Match("params")
    )
    random, store = np.random.default_rng(0), Store(tmp_path / "store")
    base = 0.6 + 0.02 * random.normal(size=8)
    small = 0.005 * random.normal(size=8)
    small -= small.mean()
    drawn(
        made_up,
        {
            "base": base,
            "d_state=8": base - 0.3 + small,
            "rope=off": base + small,
            "lora_rank=0": base + 0.2 * random.normal(size=8),
            "conv=off": base - 0.1005 + small,
        },
        store,
    )
    return made_up, store


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return planted(tmp_path_factory.mktemp("planted"))


def test_planted_effects_get_their_answers_and_a_threshold_that_is_only_just_reached_is_not_confirmed(whole):
    found = report(*whole)
    assert {one.claim.text: (one.alone, one.answer) for one in found.claims} == {
        "memory is needed": ("confirmed", "confirmed"),
        "positions do nothing": ("confirmed", "confirmed"),
        "adapters help": ("unclear", "unclear"),
        "no taps is better": ("refuted", "unclear"),
        "no taps costs a tenth": ("unclear", "unclear"),
    }
    assert {one.verdict for one in found.contrasts} == {"no verdict (exploratory)"}, "a study with claims answers those"
    one = found.claims[0]
    assert one.mean == pytest.approx(-0.3, abs=0.01) and one.low <= one.median <= one.high and 0 < one.least < 0.1
    assert one.p == pytest.approx(1 / 256) and one.p_study == pytest.approx(5 / 256)
    assert "8 of 8 seeds within it (up to 31% may not be)" in found.markdown()
    outcome = {one.arm: one for one in found.outcomes}["base"]
    assert (outcome.seeds, outcome.solved, outcome.diverged, outcome.solve_low) == (8, 0, 0, 0)
    assert outcome.mean_accuracy == pytest.approx(0.6, abs=0.03)


def test_in_a_study_without_claims_every_contrast_of_every_metric_is_one_family(whole):
    made_up, store = whole
    found = report(replace(made_up, claims=()), store)
    verdicts = {one.arm: one.verdict for one in found.contrasts if one.metric == "accuracy"}
    assert [one.p_study for one in found.contrasts if one.arm == "conv=off"] == [pytest.approx(8 * 2 / 256)] * 2
    assert set(verdicts.values()) == {"no verdict"}, "eight contrasts take nine seeds"
    alone = report(replace(made_up, claims=(), metrics=("accuracy",)), store)
    verdicts = {one.arm: one.verdict for one in alone.contrasts}
    assert verdicts == {"d_state=8": "less", "conv=off": "less", "lora_rank=0": "no verdict", "rope=off": "no verdict"}
    assert "Verdicts after Holm over all 4 contrasts" in alone.markdown()


def test_too_few_seeds_and_missing_cells_are_said(whole):
    made_up, store = whole
    fewer = report(replace(made_up, seeds=SEEDS[:5], claims=CLAIMS[:1]), store)
    assert {(one.answer, one.why) for one in fewer.claims} == {("no answer", "5 seeds, 6 needed")}
    more = report(replace(made_up, seeds=(*SEEDS, 99)), store)
    assert more.missing == 5 and "5 cells are missing" in more.markdown()
    with pytest.raises(ValueError, match="no finished cell"):
        report(replace(made_up, seeds=(50,)), store)


def test_arms_are_compared_by_the_metrics_of_the_study(whole):
    made_up, store = whole
    found = report(replace(made_up, metrics=("steps", "loss.late"), claims=()), store)
    assert {one.metric for one in found.contrasts} == {"steps", "loss.late"} == figures(found).keys() & {"steps", "loss.late"}
    late = next(one for one in found.contrasts if one.metric == "loss.late" and one.arm == "conv=off")
    assert late.mean == pytest.approx(0.05, abs=0.01)
    steps = next(one for one in found.contrasts if one.metric == "steps")
    assert (steps.mean, steps.verdict) == (0, "no verdict (steps cannot tell: in 8 of 8 seeds none had solved it)")
    assert "steps until solved" in found.markdown() and 'of "late"' in found.markdown()
    with pytest.raises(ValueError, match="no slice for the metric 'loss.early': there are loss.late"):
        contrasts(made_up, found.cells, ["loss.early"])
    with pytest.raises(ValueError, match="a metric is one of accuracy, loss, solve_rate, steps, loss.NAME"):
        replace(made_up, metrics=("speed",))


def test_claims_of_one_family_are_corrected_together_whatever_their_arms_and_metrics(tmp_path):
    claims = [
        Claim("a", "d_state=8"),
        Claim("b", "d_state=16"),
        Claim("c", "rope=off", direction="less"),
        Claim("d", "d_state=8", metric="loss", direction="less", family="of its own"),
    ]
    made_up = study(seeds=SEEDS[:7], axes={"d_state": [8, 16], "rope": [False]}, claims=claims)
    store, up = Store(tmp_path / "store"), np.linspace(0, 0.01, 7)
    drawn(made_up, {"base": up, "d_state=8": 0.5 + up * 0.9, "d_state=16": 0.5 + up * 1.1, "rope=off": 0.5 + up * 0.9}, store)
    found = report(made_up, store)
    assert [one.p_study for one in found.claims] == pytest.approx([3 / 128, 3 / 128, 1, 1 / 128])
    assert [one.answer for one in found.claims] == ["confirmed", "confirmed", "unclear", "confirmed"]
    assert "4 claims, corrected in 2 families" in found.markdown()


def test_a_diverged_cell_is_counted_and_answers_like_guessing(tmp_path):
    made_up, store = study(seeds=(0,)), Store(tmp_path / "store")
    for one in plan(made_up).cells:
        store.add(made(one.cell, 0.5, "diverged" if one.arm != "base" else "unsolved"))
    outcome = {one.arm: one for one in report(made_up, store).outcomes}["conv=off"]
    assert (outcome.diverged, outcome.solved) == (1, 0)
    assert (outcome.mean_accuracy, outcome.loss) == (pytest.approx(1 / 11), pytest.approx(np.log(11)))


def test_the_page_holds_every_table_and_figure_and_needs_nothing_else(whole):
    found = report(*whole)
    text, html = found.markdown(), as_html(found)
    for words in (
        "## Claims",
        "## Against the base: accuracy",
        "## Outcomes",
        "## Costs",
        "simulated studies",
        "**confirmed**",
        "Matched by params",
    ):
        assert words in text
    assert html.count("<table>") == text.count("\n|---") >= 5 and html.count("plotly-graph-div") >= len(figures(found)) == 5
    assert "<script src" not in html and "cdn.plot" not in html.split("</head>")[0]
    assert page("# a | b\n\n| x |\n|---|\n| **1** \\| 2 |") == (
        "<h1>a | b</h1>\n<div class='wide'><table><tr><th>x</th></tr><tr><td><b>1</b> | 2</td></tr></table></div>"
    )
    json.dumps(found.as_dict(), allow_nan=False)


def test_a_curve_stays_where_it_was_solved_and_ends_where_it_diverged():
    point = lambda step, accuracy: {"step": step, "accuracy": accuracy}
    cells = {
        0: {"curve": [point(1, 0.2), point(2, 1.0)], "status": "solved", "steps": 2},
        1: {"curve": [point(1, 0.1)], "status": "diverged", "steps": 1},
        2: {"curve": [point(1, 0.1), point(2, 0.2), point(3, 0.3)], "status": "unsolved", "steps": 3},
    }
    steps, values = curve(cells)
    assert steps.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(values, [[0.2, 1, 1], [0.1, np.nan, np.nan], [0.1, 0.2, 0.3]])


FILE = tiny_file | {"name": "by-hand"}


def test_the_command_line_plans_without_making_anything_and_reports_what_is_there(tmp_path, capsys):
    file, store = tmp_path / "study.yaml", tmp_path / "store"
    allow = ["--allow-import", "ablate.tiny:Before"]
    file.write_text(yaml.safe_dump(FILE))
    assert main(["ablate", "plan", str(file), "--store", str(store), "--time", *allow]) == 0
    said = capsys.readouterr().out
    assert "2 arms" in said and "4 cells, 0 of them finished" in said and "core hours" in said and not store.exists()
    assert main(["ablate", "report", str(file), "--store", str(store), *allow]) == 2 and "there is no store" in capsys.readouterr().err
    from zamba_lab.ablate import read_study

    drawn(read_study(file, allow[1:]), {"base": [0.5, 0.6], "rope=off": [0.5, 0.7]}, Store(store))
    assert main(["ablate", "plan", str(file), "--store", str(store), "--json", *allow]) == 0
    assert json.loads(capsys.readouterr().out)["finished"] == 4
    assert main(["ablate", "report", str(file), "--store", str(store), *allow]) == 0
    assert (store / "report.md").read_text() in capsys.readouterr().out + "\n"
    assert (store / "report.html").stat().st_size > 1_000_000, "plotly is not in it"
    file.write_text(yaml.safe_dump(FILE | {"axes": {"rotary": [1]}}))
    line = file.read_text().splitlines().index("  rotary:") + 2
    assert main(["ablate", "run", str(file), "--store", str(store), *allow]) == 2
    assert f"{file}:{line}: no such axis: 'rotary'" in capsys.readouterr().err


PLANTED = "<img src=x onerror=alert(1)> & **b** [go](javascript:x) | a\n## b\x1b[31m &lt;"


class Reader(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.words = set(), ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)

    def handle_data(self, data):
        self.words += data


def test_what_a_file_names_stands_in_a_report_as_text(tmp_path):
    """Claims, arms, slices and tasks: no HTML, link, line or control character of theirs gets into report.md or report.html."""
    arm = PLANTED.replace("\n", " ").replace("\x1b", "")
    made_up = study(
        seeds=range(6),
        axes={},
        arms={arm: {"conv": False}},
        claims=[Claim(PLANTED, arm)],
        metrics=["accuracy", f"loss.{PLANTED}"],
        task=replace(study().task, name=PLANTED),
    )
    store = Store(tmp_path / "store")
    for one in plan(made_up).cells:
        row = made(one.cell, 0.5)
        slices = json.dumps({f"loss.{PLANTED}": 0.1 * one.seed})
        store.add(row | {"slices": slices, "also": json.dumps({PLANTED: 0.5})})
    text = report(made_up, store).markdown()
    for mark in ("<", "[go](", "\x1b", "\n## b"):
        assert mark not in text.replace("< 0.001", ""), mark
    tables = [block.splitlines()[-1:] + block.splitlines()[:-1] for block in text.split("\n\n") if block.startswith("| ")]
    assert tables and all(len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1 for table in tables), "a cell became two"
    shown = Reader(page(text))
    assert shown.tags <= {"h1", "h2", "h3", "p", "b", "div", "table", "tr", "th", "td"}
    for words in ("<img src=x onerror=alert(1)> &", "[go](javascript:x) | a ## b", "&lt;"):
        assert words in shown.words


@pytest.mark.parametrize("text", ["lora_rank=0", "d_state=8, rope=off", "ABAB", "a state of 32"])
def test_an_ordinary_name_is_left_as_it_is(text):
    assert plain(text) == text


@pytest.mark.skipif(os.name != "posix", reason="a closed pipe is another error there")
@pytest.mark.parametrize(
    "words", [["plan", "quick"], ["plan", "quick", "--json"], ["report", "quick"], ["report", "quick", "--json"]], ids=" ".join
)
def test_a_reader_that_has_seen_enough_is_no_error(words, tmp_path):
    """As `| head` does: the pipe is closed before anything is read."""
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "zamba_lab", "ablate", *words]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(root)})
    os.close(writing)
    assert done.stderr.decode() == "" and done.returncode in (0, 120, 141), done.stderr.decode()
