"""The first notebook, as a person meets it: JupyterLab, a browser, every cell run, a control moved."""

from pathlib import Path

import pytest
from browser.lab import CHROMIUM_ARGS, Notebook, jupyterlab

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
NAME = "00_start_here.ipynb"
PLOTLY = "application/vnd.plotly.v1+json"
STATES, ATTENTION, DECAY, SWITCH = range(4)          # the panels, in the order of the notebook


@pytest.fixture(scope="module")
def notebook(chromium, tmp_path_factory):
    """The notebook, open and run once for all the tests of this file."""
    from playwright.sync_api import sync_playwright

    with jupyterlab(NOTEBOOKS, tmp_path_factory.mktemp("lab")) as place, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
        # so high that every cell is in view: JupyterLab draws only those
        opened = Notebook(browser, place, NAME, height=9000)
        opened.run_all()
        yield opened
        browser.close()


def test_every_cell_runs_without_an_error(notebook):
    for cell in notebook.cells():
        errors = [f"{out['ename']}: {out['evalue']}" for out in cell["outputs"] if out["output_type"] == "error"]
        assert not errors, (cell["source"], errors)
        assert cell["execution_count"], f"did not run: {cell['source']}"


def test_every_figure_is_drawn(notebook):
    outputs = [out.get("data", {}) for cell in notebook.cells() for out in cell["outputs"]]
    figures = sum(PLOTLY in data for data in outputs)
    panels = sum("Panel(" in "".join(data.get("text/plain", "")) for data in outputs)
    assert panels == 4 and figures >= 2
    notebook.wait_for_figures(panels + figures)
    assert notebook.figures() == panels + figures
    assert notebook.broken() == []


@pytest.mark.parametrize(("panel", "slider", "before", "after"), [
    (STATES, 0, "head 0", "head 1"), (ATTENTION, 0, "attention head 0", "attention head 1"),
    (DECAY, 0, "depth 0", "depth 1")])
def test_an_arrow_key_on_a_slider_changes_the_figure(notebook, panel, slider, before, after):
    shown = notebook.panel(panel)
    shown.wait_for_title(before)
    picture = shown.picture()
    shown.press_on_slider(slider, "ArrowRight")
    shown.wait_for_title(after)
    assert shown.picture() != picture


def test_choosing_a_part_changes_the_figure(notebook):
    shown = notebook.panel(SWITCH)
    shown.wait_for_title("every invocation off")
    picture = shown.picture()
    shown.choose(0, "adapter")
    shown.wait_for_title("every adapter off")
    assert shown.picture() != picture


def test_the_page_raises_nothing_and_asks_nobody_else(notebook):
    notebook.page.wait_for_load_state("networkidle")
    assert notebook.errors == []
    assert notebook.strangers == []
