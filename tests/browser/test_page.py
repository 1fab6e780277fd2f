"""A model in a page: opened from the disk in a real browser without a network, beside the same model in Python."""

from importlib.resources import files

import pytest
import torch
from browser.lab import CHROMIUM_ARGS
from tokenizers import Tokenizer as Inner
from tokenizers import decoders, models, pre_tokenizers, trainers
from variants import VARIANTS, make_model, random_ids

import zamba_lab as zl
from zamba_lab import lens
from zamba_lab.config.presets import NANOS
from zamba_lab.lens.parts import attention_depths, attention_path
from zamba_lab.pages.packing import config_of, packed
from zamba_lab.pages.words import vocabulary

TEXT = "def add(self, name):\n    self.name = name\n    return self.name\n"
TEXTS = [
    *(
        "",
        " ",
        "\n\n   x",
        "a\r\n\tb",
        "it's  we'll\u00a0x\u2003y ",
        "\u0085\ufeff\u200b",
        "<s></s><pad>",
        "na\u00efve \u03a9 \u4e2d\u6587 \u0661\u0662",
    ),
    *("\N{ZEBRA FACE}\u05e9\u05dc", "x" * 300, "__init__(self, *args)", "</script><b>&amp;$x$", "\x00\x1f", "1234567 3.14e-5", TEXT),
]
HOSTILE = "<script>document.title='taken'</script> </b>&amp; <img src=x onerror=alert(1)> $x$ {{DATA}} \u05e9\u05dc \N{ZEBRA FACE} <s>"
DONE = "() => lab.whole && lab.whole.length && !lab.working && !lab.toWrite"
READ = """async ([config, shapes, weights, bytes, ids]) => {
  const run = new Run(new Model(config, await unpack(weights, shapes, bytes)));
  return ids.map(id => run.read(id)).map(row => [row.logits, row.attention.flat(), row.norms, row.halfLives].map(plain)) }"""
PLAIN = "() => { window.plain = value => ArrayBuffer.isView(value) ? [...value] : Array.isArray(value) ? value.map(plain) : value }"
LOSSES = "run => Array.from({ length: lab[run].length - 1 }, (_, t) => lab[run].loss(t + 1))"


@pytest.fixture(scope="module")
def browser(chromium):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGS)
        yield browser
        browser.close()


def wait(page) -> None:
    """Until nothing is left to read or to write. The page forbids `eval`, with which playwright's own waiting works."""
    while not page.evaluate(DONE):
        page.wait_for_timeout(20)


def opened(browser, file):
    """A page with the network cut off; `errors` and `requests` fill up."""
    page = browser.new_context(offline=True).new_page()
    page.set_default_timeout(60_000)
    page.errors, page.requests = [], []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda message: page.errors.append(message.text))
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(file.as_uri())
    wait(page)
    page.evaluate(PLAIN)
    return page


@pytest.fixture(scope="module")
def pages(browser, tmp_path_factory):
    """name -> a shipped model, its page and the file; made once."""
    made = {}

    def page_of(name: str):
        if name not in made:
            model = zl.load(name)
            file = zl.page(model, tmp_path_factory.mktemp("page") / "page.html", text=TEXT, reference=TEXT, name=name)
            made[name] = model, opened(browser, file), file
        return made[name]

    return page_of


def ids_of(model: zl.Zamba, text: str = TEXT) -> torch.Tensor:
    return torch.tensor([model.tokenizer.encode(text)])


@pytest.mark.parametrize("name", NANOS)
def test_a_shipped_model_computes_in_its_page_what_it_computes_in_python(pages, name):
    model, page, file = pages(name)
    ids = ids_of(model)
    logits = torch.tensor(page.evaluate("plain(lab.whole.rows.map(row => row.logits))"))
    assert page.evaluate("lab.tokens") == ids[0].tolist()
    torch.testing.assert_close(logits, model(ids)[0].detach(), atol=1e-3, rtol=0)
    assert file.stat().st_size < 10_000_000
    assert page.errors == [] and page.requests == [file.as_uri()]


@pytest.mark.parametrize("name", NANOS)
@pytest.mark.parametrize("how", ["mean", "zero"])
def test_a_part_switched_off_costs_in_the_page_what_it_costs_by_the_lens(pages, name, how):
    model, page, _ = pages(name)
    ids, config = ids_of(model), model.config
    part = "invocation" if config.n_invocations else "mixer" if config.mixer != "attention" else "head"
    key, head = (f"{part}.1.2", dict(head=2)) if part == "head" else (f"{part}.1", {})
    change = lens.mean(part, 1, ids, **head) if how == "mean" else lens.zero(part, 1, **head)
    page.select_option("#how", how)
    page.click(f"[data-part='{key}']")
    wait(page)
    with lens.intervene(model, change) as changed:
        torch.testing.assert_close(torch.tensor([page.evaluate(LOSSES, "changed")]), lens.next_token_loss(changed, ids), atol=1e-3, rtol=0)
    assert f"{float(lens.next_token_loss(changed, ids).mean()):.2f}" in page.inner_text("#worth")
    page.click("#all-on")
    wait(page)
    assert page.evaluate("lab.changed") is None and page.errors == []


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_read_in_a_page_as_in_python(pages, name):
    _, page, _ = pages("zamba2-nano")
    model, c = make_model(VARIANTS[name]).float(), VARIANTS[name]
    ids = random_ids(c, b=1, l=9)
    shapes, weights = packed(model.state_dict(), torch.float32)
    rows = page.evaluate(READ, [config_of(c), shapes, weights, 4, ids[0].tolist()])
    logits, attention, norms, lives = zip(*rows)
    close = dict(atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(torch.tensor(logits), model(ids)[0].detach(), **close)
    if c.mixer != "attention":
        torch.testing.assert_close(torch.tensor(norms), lens.state_norms(model, ids)[:, 0].transpose(0, 1), **close)
        torch.testing.assert_close(torch.tensor(lives), lens.decay(model, ids).half_life[:, 0].transpose(0, 1), **close)
    points = [f"{attention_path(c, k)}.attn_probs" for k in range(len(attention_depths(c)))]
    if points:
        trace = lens.run(model, ids, keep=points)
        torch.testing.assert_close(torch.tensor(attention[-1]), torch.cat([trace[point][0, :, -1] for point in points]), **close)


def test_half_precision_rounds_the_weights_and_nothing_else(pages):
    _, page, _ = pages("zamba2-nano")
    weights = {"all": torch.tensor([0.0, -0.0, 1.0, -2.5, 1e-7, 6e-5, 65504.0, 0.1, -3.3e-6])}
    read = "async ([shapes, text]) => plain((await unpack(text, shapes, 2)).get('all').data)"
    assert page.evaluate(read, list(packed(weights, torch.float16))) == weights["all"].half().tolist()


def test_a_page_cuts_any_text_into_tokens_as_python_does(pages):
    model, page, _ = pages("zamba2-nano")
    gpt2 = Inner(models.BPE())
    gpt2.pre_tokenizer, gpt2.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    gpt2.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=330, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    both = "([data, texts]) => { const t = new Tokenizer(data); return texts.map(text => [t.encode(text), t.decode(t.encode(text))]) }"
    for tokenizer in (model.tokenizer, zl.Tokenizer(gpt2)):
        wanted = [[tokenizer.encode(text), text.replace("\ufeff", "", text.startswith("\ufeff"))] for text in TEXTS]
        assert page.evaluate(both, [vocabulary(tokenizer), TEXTS]) == wanted


def test_typing_steps_and_generation_by_keyboard(pages):
    model, page, _ = pages("zamba2-nano")
    page.fill("#temperature", "0")
    page.focus("#text")
    page.keyboard.press("Control+End")
    page.keyboard.type("    def")
    wait(page)
    start = page.input_value("#text")
    assert start == TEXT + "    def"
    page.keyboard.press("Alt+Enter")
    wait(page)
    one = page.evaluate("lab.tokens")
    page.keyboard.press("Control+Enter")
    while page.evaluate("lab.tokens.length") < len(one) + 8:
        page.wait_for_timeout(20)
    page.keyboard.press("Escape")
    wait(page)
    ids = ids_of(model, start)
    tokens = page.evaluate("lab.tokens")
    assert tokens[: len(one) + 8] == ids[0].tolist() + zl.generate(model, ids, 9)[0].tolist()
    assert page.input_value("#text") == model.tokenizer.decode(tokens)
    page.keyboard.press("Alt+Backspace")
    page.keyboard.press("Alt+Backspace")
    wait(page)
    assert page.input_value("#text") == start and page.evaluate("lab.tokens") == ids[0].tolist()
    page.keyboard.press("Control+Home")
    page.keyboard.press("Delete")  # an edit in the middle of what was read
    wait(page)
    ids = ids_of(model, start[1:])
    torch.testing.assert_close(torch.tensor([page.evaluate(LOSSES, "whole")]), lens.next_token_loss(model, ids), atol=1e-3, rtol=0)
    page.fill("#text", TEXT)
    wait(page)


def test_arrow_keys_move_every_view_and_space_switches_a_head(pages):
    model, page, _ = pages("zamba2-nano")
    page.focus("#chips .chosen")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#token").startswith("token 1 def")
    assert page.evaluate("document.activeElement.dataset.at") == "1"
    top = model(ids_of(model))[0, 1].softmax(-1).topk(1)
    assert (
        page.evaluate("document.querySelector('#bars .name').textContent").removeprefix("\u25b8 ") in model.tokenizer.pieces(top.indices)[0]
    )
    page.focus("[aria-label^='invocation 2 (block A), head 3']")
    page.keyboard.press("Enter")
    assert page.inner_text("#large-title") == "Invocation 2 (block A), head 3: who reads whom"
    page.focus("[data-part='head.2.3']")
    page.keyboard.press("Space")
    wait(page)
    assert (
        page.evaluate("[...lab.off]") == ["head.2.3"] and page.is_visible("#worth") and "head 3 of attention 2" in page.inner_text("#worth")
    )
    page.fill("#temperature", "0")
    page.click("#both")
    while page.evaluate("lab.besides"):
        page.wait_for_timeout(20)
    ids = ids_of(model)
    with lens.intervene(model, lens.mean("head", 2, ids, head=3)) as changed:
        wanted = [model.tokenizer.decode(zl.generate(each, ids, 8)[0].tolist()) for each in (model, changed)]
    assert all(map(str.startswith, page.locator("#beside pre").all_text_contents(), wanted))
    page.focus("[data-part='head.2.3']")
    page.keyboard.press("Space")
    wait(page)
    assert page.is_hidden("#worth") and page.errors == []


def test_hostile_texts_and_names_stay_text(browser, tmp_path):
    file = zl.page(zl.load("zamba2-nano"), tmp_path / "page.html", text=HOSTILE, reference=TEXT, name="</title><script>1", dtype="float16")
    page = opened(browser, file)
    assert page.input_value("#text") == HOSTILE and page.inner_text("h1") == "</title><script>1"
    shown = page.evaluate("lab.chips.map(({ chip }) => chip.textContent).join('')")
    assert shown == "".join(zl.load("zamba2-nano").tokenizer.pieces(page.evaluate("lab.tokens")))
    own = files("zamba_lab.pages").joinpath("page.html").read_text().count("<script ") - 1  # the weights' goes when they are unpacked
    assert page.title().startswith("</title>") and page.evaluate("document.querySelectorAll('script').length") == own == 8
    for text in ("", "\n", " ", "x" * 9000):
        page.fill("#text", text)
        page.evaluate("lab.limit = 40")
        page.evaluate("readText()")
        wait(page)
        assert page.evaluate("lab.tokens.length") <= 40
    assert "stops there" in page.inner_text("#status")
    assert page.errors == [] and page.requests == [file.as_uri()]


@pytest.mark.parametrize("width", [360, 1000, 1600])
def test_a_page_is_no_wider_than_its_window(pages, width):
    _, page, _ = pages("transformer-nano")
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
