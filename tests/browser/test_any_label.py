"""Any label, read back from a page that a browser drew: every function of `viz`, its ticks, titles, legends, words and hover text."""

import re
from collections import Counter

import pytest
from browser.lab import CHROMIUM_ARGS
from plotly.offline import get_plotlyjs
from viz.hostile import FIGURES, LABELS, ONE, TWICE, draw, shown_labels

from zamba_lab.viz.labels import TOKEN

# A formula would be set by MathJax; this one says that it was asked to.
MATHJAX = """window.MathJax = {version: '3.2.2', config: {}, startup: {output: 'svg', document: {}},
  typesetPromise() { window.formula = true; return Promise.resolve() }, typeset() { window.formula = true }}"""
DRAW = """async json => { document.body.innerHTML = ''; const plot = document.createElement('div'); document.body.append(plot);
  const {data, layout} = JSON.parse(json); await Plotly.newPlot(plot, data, layout) }"""
WORDS = "() => [...document.querySelectorAll('svg text')].map(text => text.textContent)"
# Where in the page each point is that has hover text, and the cells on a map's diagonal; of many maps the first.
POINTS = """() => { const plot = document.querySelector('.js-plotly-plot'), box = plot.getBoundingClientRect(), found = [];
  for (const trace of plot._fullData.filter(trace => trace.hoverinfo !== 'skip' && trace.visible === true).slice(0, 40)) {
    const x = plot._fullLayout[(trace.xaxis || 'x').replace('x', 'xaxis')],
      y = plot._fullLayout[(trace.yaxis || 'y').replace('y', 'yaxis')];
    const calc = plot.calcdata[trace.index][0], map = trace.type === 'heatmap',
      count = map ? trace.z.length : plot.calcdata[trace.index].length;
    for (let i = 0; i < count && found.length < 45; i++) {
      const point = plot.calcdata[trace.index][i], column = map ? Math.min(i, trace.z[i].length - 1) : 0;
      const at = map ? [x.l2p(column), y.l2p(i)] : trace.type === 'bar' ? [x.c2p((point.s0 + point.s1) / 2), y.c2p(point.p)]
        : [x.c2p(point.x), y.c2p(point.y)];
      if (at.every(isFinite)) found.push([box.x + x._offset + at[0], box.y + y._offset + at[1]]) } }
  return found }"""
HOVER = "() => [...document.querySelectorAll('.hoverlayer text')].map(text => text.textContent).join(' ')"


def hovered(page) -> list[str]:
    """The hover text at each point, under a real pointer."""
    found = []
    for x, y in page.evaluate(POINTS):
        page.mouse.move(x, y)
        page.wait_for_timeout(60)  # plotly waits 50 ms between two hover texts
        found.append(page.evaluate(HOVER))
    return found


@pytest.fixture(scope="module")
def page(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
        page = browser.new_page(viewport={"width": 1400, "height": 3200})
        page.set_content("<!DOCTYPE html><title>untouched</title><body></body>")
        page.evaluate(MATHJAX)
        page.add_script_tag(content=get_plotlyjs())
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        yield page
        browser.close()


def letters(text: str) -> str:
    """Text without spaces, which a line break may take the place of."""
    return re.sub(r"\s", "", text)


@pytest.mark.parametrize("name", FIGURES)
def test_every_label_is_read_back_from_the_page(page, name):
    page.evaluate(DRAW, draw(name).to_json())
    words = page.evaluate(WORDS)
    single, many = shown_labels(name)
    everything = letters(" ".join(words + hovered(page)))
    for label in [ONE + parameter for parameter in single] + (LABELS if many else []):
        assert letters(label) in everything, (name, label)
    if {"rows", "tokens", "sites"} & many and name not in ("questions", "token_effect"):
        # On an axis equal labels stand as often as they are there, cut where they are long.
        short = {label: label for label in LABELS if 0 < len(label) <= TOKEN and "\n" not in label}
        drawn = Counter(words)
        for label in short:
            assert drawn[label] >= TWICE.count(label), (name, label, drawn[label])
    assert page.title() == "untouched" and page.evaluate("() => [!window.formula, document.querySelectorAll('text a').length]") == [True, 0]
    assert page.errors == []


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "questions"])
def test_numbers_that_are_not_finite_are_said_on_the_page(page, name):
    page.evaluate(DRAW, draw(name, bad=True).to_json())
    assert any("Not drawn as numbers" in text for text in page.evaluate(WORDS))
    assert page.errors == []
