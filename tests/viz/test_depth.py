"""The depth diagram says what the config is, and what the model computes; in the browser it is walked by keys."""

import json
import re

import pytest
import torch
from browser.lab import CHROMIUM_ARGS
from viz.hostile import TWICE

from zamba_lab import lens, viz
from zamba_lab.config import ZambaConfig
from zamba_lab.model import Zamba

CONFIG = ZambaConfig(
    vocab_size=64, d_model=16, n_layers=4, d_state=8, headdim=8, hybrid_layers=(1, 2, 3), attn_heads=2, d_mlp=16, lora_rank=2
)


def data_of(drawing: viz.architecture.Drawing) -> dict:
    """What the page's code is given."""
    return json.loads(re.search(r"'\), (\{.*\})\)</script>$", drawing.html).group(1))


@pytest.mark.parametrize(
    "config", [CONFIG, ZambaConfig(vocab_size=64, d_model=16, n_layers=2, mixer="attention", n_shared_blocks=0, attn_heads=2, d_mlp=16)]
)
def test_the_bytes_of_the_parts_are_those_of_the_cache(config):
    parts = data_of(viz.depth_diagram(config, "t"))["parts"]
    for context in (1, 100):
        assert sum(part["fixed"] + part["token"] * context for part in parts) == config.cache_bytes(context)


def test_each_layer_and_invocation_has_a_box_and_every_arrow_a_point_of_the_trace():
    model, ids = Zamba(CONFIG), torch.arange(5)[None]
    norms = {name: values[0] for name, values in lens.stream_norms(model, ids).items()}
    data = data_of(viz.depth_diagram(CONFIG, "t", tokens=list("abcde"), norms=norms))
    assert [part["block"] for part in data["parts"]] == [None] * 4 + [0, 1, 0]
    assert {edge["point"] for edge in data["edges"]} <= set(norms)
    trace = lens.run(model, ids, keep=["layers.2.resid_out"])
    torch.testing.assert_close(torch.tensor(data["norms"]["layers.2.resid_out"]), trace["layers.2.resid_out"][0].square().mean(-1).sqrt())
    with pytest.raises(ValueError, match="got 5 of embed, 2 tokens"):
        viz.depth_diagram(CONFIG, "t", tokens=["a", "b"], norms=norms)


@pytest.mark.browser
def test_any_token_is_shown_and_keys_walk_the_tokens_and_the_depth(chromium):
    from playwright.sync_api import sync_playwright

    norms = {name: [float(i) for i in range(len(TWICE))] for name in ("embed", *(f"layers.{i}.resid_out" for i in range(4)))}
    norms["embed"][0] = float("nan")
    drawing = viz.depth_diagram(CONFIG, "<script>document.title='taken'</script>", tokens=TWICE, norms=norms)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
        page, errors = browser.new_page(), []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.set_content(f"<!DOCTYPE html><title>untouched</title><body>{drawing.html}</body>")
        chips = page.locator(".zl-tokens span")
        assert chips.count() == len(TWICE) and chips.nth(0).text_content() == "<s>"
        assert [chips.nth(i).get_attribute("title") for i in range(9)] == [f"token {i} «{token}»" for i, token in enumerate(TWICE[:9])]
        page.locator(".zl-tokens").focus()
        width = "() => document.querySelector('[data-edge=\"1\"]').style.strokeWidth"
        before = page.evaluate(width)
        page.keyboard.press("ArrowLeft")
        assert page.evaluate(width) != before and page.locator(".zl-now").count() == 1
        for _ in range(3):
            page.keyboard.press("ArrowUp")
        assert page.locator(".zl-part.zl-dim").count() == 4  # the last two layers and their invocations
        page.locator("[data-part='4']").hover()
        assert page.locator(".zl-part.zl-lit").count() == 2 and "invocation 0 of block A" in page.locator(".zl-said").text_content()
        assert page.title() == "untouched" and errors == []
        browser.close()
