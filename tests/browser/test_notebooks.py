"""The notebooks as a person meets them: JupyterLab, a browser, every cell run, every figure looked at, controls moved."""

from pathlib import Path
from typing import NamedTuple

import pytest
from browser.lab import CHROMIUM_ARGS, Notebook, jupyterlab

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
PLOTLY = "application/vnd.plotly.v1+json"


class Move(NamedTuple):
    """What is done to one control of a panel, and what the figure's title says before and after."""

    panel: int  # panels and, in each, sliders and dropdowns are counted from 0
    before: str
    after: str
    slider: int | None = None  # an arrow key to the right on it ...
    dropdown: int | None = None  # ... or `option` chosen in it
    option: str = ""


MOVES = {
    "00_start_here.ipynb": [
        Move(0, "head 0", "head 1", slider=0),
        Move(1, "every attention head", "attention head 1", dropdown=1, option="1"),
        Move(2, "depth 0", "depth 1", slider=0),
        Move(3, "every invocation at its mean", "every adapter at its mean", dropdown=0, option="adapter"),
    ],
    "02_ssm_states.ipynb": [
        Move(0, "head 0", "head 1", slider=0),
        Move(1, "head 0", "head 1", slider=0),
        Move(2, "depth 0", "depth 1", slider=0),
        Move(3, "depth 0", "depth 1", slider=0),
    ],
    "03_attention_by_invocation.ipynb": [
        Move(0, "Block A", "Block B", dropdown=0, option="B"),
        Move(1, "the block's output", "the link's output", dropdown=1, option="the link's output"),
        Move(2, "head 0", "head 1", slider=1),
    ],
    "04_causal_lab.ipynb": [
        Move(0, "lens: the stream", "what is added", dropdown=0, option="what is added to it"),
        Move(1, "every invocation at its mean", "every mixer at its mean", dropdown=0, option="mixer"),
        Move(2, "2 tokens back", "32 tokens back", dropdown=0, option="32 tokens"),
    ],
    "06_a_first_ablation.ipynb": [Move(0, "What each change does to accuracy", "Learning curves", dropdown=0, option="learning curves")],
    "07_architecture_ablations.ipynb": [
        Move(0, "What each change does to accuracy", "Learning curves", dropdown=0, option="learning curves"),
        Move(1, "What each change does to loss", "does to loss.repeated", dropdown=0, option='effects: held-out loss of "repeated", nats'),
    ],
}


@pytest.fixture(scope="module")
def browser(chromium, tmp_path_factory):
    """One JupyterLab and one browser for all of them: what opens a notebook by name."""
    from playwright.sync_api import sync_playwright

    with jupyterlab(NOTEBOOKS, tmp_path_factory.mktemp("lab")) as place, sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
        # so high that every cell is in view: JupyterLab draws only those
        yield lambda name: Notebook(started, place, name, height=14000)
        started.close()


@pytest.fixture(scope="module", params=MOVES)
def notebook(request, browser):
    """A notebook, open and run once for all the tests of it."""
    opened = browser(request.param)
    opened.run_all()
    yield opened
    opened.close()


def test_every_cell_runs_without_an_error(notebook):
    for cell in notebook.cells():
        errors = [f"{out['ename']}: {out['evalue']}" for out in cell["outputs"] if out["output_type"] == "error"]
        assert not errors, (cell["source"], errors)
        assert cell["execution_count"], f"did not run: {cell['source']}"


def test_every_figure_is_drawn_and_none_is_blank(notebook):
    outputs = [out.get("data", {}) for cell in notebook.cells() for out in cell["outputs"]]
    figures = sum(PLOTLY in data for data in outputs)
    panels = sum("Panel(" in "".join(data.get("text/plain", "")) for data in outputs)
    assert panels == len(MOVES[notebook.name]) and figures >= 1
    notebook.wait_for_figures(panels + figures)
    assert notebook.figures() == panels + figures
    colors = notebook.colors()
    assert len(colors) == panels + figures and min(colors) > 2, colors  # 1: nothing but paper
    assert notebook.broken() == []


def test_moving_a_control_changes_the_figure(notebook):
    for move in MOVES[notebook.name]:
        shown = notebook.panel(move.panel)
        shown.wait_for_title(move.before)
        picture = shown.picture()
        if move.slider is not None:
            shown.press_on_slider(move.slider, "ArrowRight")
        else:
            shown.choose(move.dropdown, move.option)
        shown.wait_for_title(move.after)
        assert shown.picture() != picture, move


def test_the_page_raises_nothing_and_asks_nobody_else(notebook):
    notebook.page.wait_for_load_state("networkidle")
    assert notebook.errors == []
    assert notebook.strangers == []
