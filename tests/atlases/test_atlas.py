"""The atlas is one file that opens without a network, goes on where it was stopped, and says what `lens` says."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from browser.lab import CHROMIUM_ARGS

import zamba_lab as zl
from zamba_lab import atlases, lens
from zamba_lab.atlases import build
from zamba_lab.config import ZambaConfig
from zamba_lab.model import Zamba

TINY = atlases.Size(3, 16, 1, 6, 2, (2,), 2, 10, 4)
TEXTS = ["def total(values):\n    return sum(values)\n\n# <script>document.title='taken'</script> $x$ %{y}\n" * 12]
SMALL = dict(d_model=16, n_layers=2, d_state=8, headdim=8, hybrid_layers=(0, 1), attn_heads=2, d_mlp=16, lora_rank=2)
ARMS = {
    "zamba2": {},
    "mamba2": dict(n_shared_blocks=0),
    "transformer": dict(mixer="attention", n_shared_blocks=0),
    "zamba1": dict(mixer="mamba1", n_shared_blocks=1, lora_rank=0),
}


def tiny(arm: str = "zamba2") -> Zamba:
    tokenizer = zl.load("zamba2-nano").tokenizer
    torch.manual_seed(0)
    model = Zamba(ZambaConfig(**(SMALL | dict(vocab_size=tokenizer.vocab_size) | ARMS[arm])))
    model.tokenizer = tokenizer
    return model


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("atlas")
    return atlases.atlas(tiny(), folder, TEXTS, TINY, "<b>tiny")


def test_it_is_one_small_file_with_a_figure_for_each_page_and_every_figure_says_its_call(made):
    text = made.read_text(encoding="utf-8")
    assert made.stat().st_size < 10e6 and not re.search(r"<(script|link|img)[^>]+(src|href)=", text)
    assert all(f"<section id='{page}'>" in text for page in build.PAGES)
    assert text.count("<figcaption>") == text.count("<summary>the call</summary>") >= 12


def test_what_it_shows_is_what_the_lens_says(made):
    page = json.loads((made.parent / "pages" / "adapters.json").read_text(encoding="utf-8"))["page"]
    figure = json.loads(page["blocks"][0]["figure"])
    lengths = figure["data"][0]["x"]
    drawn = np.frombuffer(base64.b64decode(lengths["bdata"]), lengths["dtype"])
    np.testing.assert_allclose(drawn, lens.lora_change(tiny(), "mlp").norm, rtol=1e-6)
    assert page["facts"].keys() == {"invocation.0", "invocation.1"}


def test_a_second_call_measures_only_what_is_missing_and_another_model_everything(made, monkeypatch):
    measured = []
    for name, page in build.PAGES.items():
        monkeypatch.setitem(build.PAGES, name, lambda bench, name=name, page=page: measured.append(name) or page(bench))
    before = made.read_bytes()
    (made.parent / "pages" / "states.json").unlink()
    (made.parent / "pages" / "costs.json").write_text("{cut off", encoding="utf-8")
    atlases.atlas(tiny(), made.parent, TEXTS, TINY, "<b>tiny")
    assert measured == ["states", "costs"] and len(made.read_bytes()) == len(before)
    measured.clear()
    atlases.atlas(tiny(), made.parent, TEXTS, replace(TINY, needles=3), "<b>tiny")
    assert len(measured) == len(build.PAGES)


@pytest.mark.parametrize(
    "arm, absent", [("mamba2", "heads, adapters, concat"), ("transformer", "states, adapters, concat"), ("zamba1", "adapters")]
)
def test_what_a_model_lacks_is_left_out_and_named(arm, absent, tmp_path):
    text = atlases.atlas(tiny(arm), tmp_path, TEXTS, TINY).read_text(encoding="utf-8")
    assert f"It lacks what these pages show: {absent}." in text


def test_too_little_text_and_no_tokenizer_are_refused(tmp_path):
    with pytest.raises(ValueError, match="an atlas needs texts of 96 tokens: got 0 stretches of 16; add texts"):
        atlases.atlas(tiny(), tmp_path, ["short"], TINY)
    model = tiny()
    model.tokenizer = None
    with pytest.raises(ValueError, match="needs a model with a tokenizer"):
        atlases.atlas(model, tmp_path, TEXTS, TINY)


@pytest.mark.browser
def test_it_opens_without_a_network_and_its_views_are_linked(made, chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
        page, errors, asked = browser.new_context(offline=True).new_page(), [], []
        page.set_default_timeout(120_000)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: asked.append(request.url) if not request.url.startswith(("file:", "blob:", "data:")) else None)
        page.goto(made.as_uri())
        page.wait_for_selector("body[data-drawn]")
        assert page.title() == "Atlas of <b>tiny" and page.locator(".figure .main-svg").count() >= 11
        page.locator("[data-part='2']").focus()
        assert "invocation 0" in page.locator(".facts").text_content() and "its adapter on mlp" in page.locator(".facts").text_content()
        page.locator(".choose select").select_option(index=2)
        page.locator("#heads .js-plotly-plot .gtitle", has_text="invocation 1, head 0").wait_for()
        assert errors == [] and asked == []
        browser.close()
