"""The sheet of every kind of shipped model; what is written beside what it read; counting by hand."""

import json
import lzma
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from variants import VARIANTS, make_model

import zamba_lab as zl
from zamba_lab import corpora, lens
from zamba_lab.evaluate import document_bits, xz_bits, xz_bits_in_windows
from zamba_lab.specimens import QUICK, Sheet, Size, specimen
from zamba_lab.specimens.continuations import beginning, distinct, parses
from zamba_lab.specimens.estimates import estimate, ratio
from zamba_lab.specimens.held_out import some, windows

SMALL = Size(3, 48, 1, 8, 3, (4,), 4, 2, 1500, 96)


@pytest.fixture(scope="module")
def texts():
    documents = corpora.Installed(packages=("mistune", "tqdm", "Jinja2")).documents("test")
    every = [document.text for document in documents]
    return {"some": every[::2], "others": every[1::2]}


def small(name: str) -> zl.Zamba:
    """A small random model with the words of the shipped ones."""
    tokenizer = zl.load("mamba2-nano").tokenizer
    model = make_model(replace(VARIANTS[name], vocab_size=tokenizer.vocab_size)).float()
    model.tokenizer = tokenizer
    return model


@pytest.mark.parametrize("name", ["base", "mamba1", "pure mamba2", "transformer"])
def test_a_sheet_has_what_the_model_has_and_says_what_it_lacks(name, texts, tmp_path):
    model = small(name)
    sheet = specimen(model, texts, SMALL, name)
    c, data = model.config, sheet.data
    heads = c.attn_heads * (c.n_layers if c.mixer == "attention" else c.n_invocations)
    assert len(data.get("attention", {"heads": []})["heads"]) == heads
    assert ("attention" in data) == (heads > 0) and ("no attention" in str(sheet)) == (not heads)
    assert sum(row["part"] == "mixer" and row["how"] == "mean" for row in data["worth"]) == (
        0 if c.mixer == "attention" else c.n_layers + 1
    )
    assert set(data["bits a byte"]) == set(texts) and data["retrieval"][0]["distance"] == 4
    saved = sheet.save(tmp_path)
    assert Sheet.load(saved).data == json.loads(json.dumps(data)) and (saved / "specimen.md").read_text() == str(sheet)
    if c.n_invocations:
        change = lens.intervene(model, lens.zero("invocation"))
        ids = windows(texts["some"], model.tokenizer, 48, 3)
        difference = lens.next_token_loss(change, ids).mean() - lens.next_token_loss(model, ids).mean()
        assert sheet.worth("invocation", how="zero")["loss"]["change"]["mean"] == pytest.approx(float(difference), abs=1e-4)
    with pytest.raises(ValueError, match="the sheet has no row for part 'tail'"):
        sheet.worth("tail")


def test_the_same_call_gives_the_same_sheet(texts):
    model = small("pure mamba2")
    one, two = (specimen(model, texts, SMALL).data for _ in range(2))
    one["made"].pop("seconds"), two["made"].pop("seconds")
    assert one == two


def test_too_few_texts_and_a_model_without_words_are_refused(texts):
    model = zl.load("mamba2-nano")
    with pytest.raises(ValueError, match="texts of two kinds or more"):
        specimen(model, {"some": texts["some"]}, SMALL)
    with pytest.raises(ValueError, match="a sheet needs 4 documents of 64 tokens or more of each kind: got 0 of 1"):
        specimen(model, {"some": ["x = 1\n"], "others": texts["others"]}, QUICK)
    with pytest.raises(ValueError, match="a tokenizer that has a start token: got None"):
        specimen(zl.Zamba(model.config), texts, SMALL)


def test_the_held_out_texts_are_of_the_held_out_packages_and_files():
    packages = corpora.Installed(packages=("Jinja2", "einops"))
    assert {document.path.split("/")[0] for document in packages.documents("test")} == {"jinja2"}
    assert packages.documents("validation") == [
        corpora.Document(path, text, "validation") for path, text in packages.read() if packages.split_of(path) == "validation"
    ]


def test_xz_in_windows_sees_what_the_model_sees(texts):
    tokenizer, first = zl.load("mamba2-nano").tokenizer, [text[:3000] for text in texts["some"][:3]]
    whole = xz_bits_in_windows(first, tokenizer, 10**6, 10**6)
    np.testing.assert_array_equal(whole, [xz_bits([text]) for text in first])  # one window: a file of its own
    narrow = xz_bits_in_windows(first, tokenizer, 64, 32)
    assert (narrow > whole).all()
    ids, cut = tokenizer.encode(first[0]), 0
    for a in range(0, len(ids), 64):  # nothing is known but the token before each window
        known, new = tokenizer.decode(ids[a : a + 1]), tokenizer.decode(ids[a + 1 : a + 65])
        cut += xz_bits([new], [known]) if a else xz_bits([new])
    assert xz_bits_in_windows(first[:1], tokenizer, 64, 64)[0] == cut
    for content in (b"", b"a", *(text.encode() for text in first), b"".join(text.encode() for text in texts["some"])):
        assert xz_bits([content.decode()]) == 8 * len(lzma.compress(content, preset=9))


def test_bits_a_byte_are_those_of_the_documents(texts):
    model = small("transformer")
    chosen = some(texts["some"], 1500)
    bits = document_bits(model, chosen, model.tokenizer, 96, 48).sum() / sum(len(text.encode()) for text in chosen)
    assert specimen(model, texts, SMALL).data["bits a byte"]["some"]["model"]["mean"] == pytest.approx(bits, rel=1e-5)


def test_a_continuation_counts_by_its_whole_lines():
    start = "def f(x):\n    y = x"
    assert parses(start, " + 1\n    return y\n    z = (") and parses(start, "\n    return y\n")
    assert not parses(start, " + 1 return y") and not parses(start, " +\n    return y\n") and not parses(start, "\n\n  ")
    assert distinct([1, 2, 3, 4, 5]) == 1 and distinct([7] * 13) == 0.1 and math.isnan(distinct([1, 2]))


def test_a_prompt_is_a_beginning_of_whole_lines_that_parses(texts):
    tokenizer = zl.load("mamba2-nano").tokenizer
    pairs = [(text, pair) for text in texts["some"] if (pair := beginning(text, tokenizer, 96))]
    assert len(pairs) > 3
    for text, (start, rest) in pairs:
        assert start + rest == text and rest.startswith("\n") and len(tokenizer.encode(start)) <= 96
        compile(start, "prompt", "exec", flags=1 << 10)  # to a syntax tree only
    assert beginning("x = 1\n", tokenizer, 96) is None and beginning("(" * 2000, tokenizer, 96) is None


def test_estimates_leave_out_what_is_not_there_and_a_ratio_is_of_sums():
    found = estimate(torch.tensor([1.0, math.nan, 3.0, 2.0]))
    assert found["mean"] == 2 and found["n"] == 3 and 1 <= found["low"] < 2 < found["high"] <= 3
    assert estimate(torch.tensor([math.nan, math.nan])) == {"mean": None, "low": None, "high": None, "n": 0}
    assert estimate(torch.tensor([5.0]))["low"] is None
    found = ratio([1, 2, 3], [10, 10, 40])
    assert found["mean"] == pytest.approx(0.1) and found["low"] <= 0.1 <= found["high"]
    assert ratio([0.0], [0.0])["mean"] is None
