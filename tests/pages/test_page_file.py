"""The file of a page, without a browser; in one: tests/browser/test_page.py."""

import re

import pytest
import torch
from shipped import nano
from tokenizers import Tokenizer as Inner
from tokenizers import models, normalizers, pre_tokenizers
from variants import BASE, make_model

import zamba_lab as zl
from zamba_lab import lens
from zamba_lab.cli import main
from zamba_lab.pages.packing import means
from zamba_lab.pages.words import vocabulary, windows


def test_the_command_writes_a_page_that_asks_for_nothing(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("import os\n")
    text = str(tmp_path / "text.txt")
    options = ["--text", text, "--reference", text, "--dtype", "float16"]
    assert main(["page", "zamba2-nano", "-o", str(tmp_path / "new" / "page.html"), *options]) == 0
    page = (tmp_path / "new" / "page.html").read_text()
    assert f"{len(page.encode()):,} bytes" in capsys.readouterr().out
    assert not re.search(r"https?://|{{(NAME|DATA|WEIGHTS)}}|<link rel=.stylesheet|<script src", page)
    assert "default-src 'none'" in page and r'"text": "import os\n"' in page


def test_the_means_of_a_page_are_those_of_the_lens():
    model = make_model(BASE)
    ids = torch.randint(BASE.vocab_size, (2, 9), generator=torch.Generator().manual_seed(0))
    found = means(model, ids)
    assert {name: list(mean.shape) for name, mean in found.items() if name.endswith(".1")} == {
        "mean.invocation.1": [16],
        "mean.head.1": [4, 8],
        "mean.mixer.1": [16],
    }
    fixed = zl.Trace(edit={"invocation.1.link_out": lambda value: found["mean.invocation.1"].expand_as(value)})
    with lens.intervene(model, lens.mean("invocation", 1, ids)) as changed:
        torch.testing.assert_close(model(ids, trace=fixed), changed(ids))


def test_a_reference_is_rows_of_equal_length_that_begin_documents():
    tokenizer = nano().tokenizer
    rows = windows(tokenizer, "x = 1\n" * 200)
    assert rows.shape[1] == 256 and (rows[:, 0] == tokenizer.bos_id).all()
    assert windows(tokenizer, "x").tolist() == [tokenizer.encode("x")]
    with pytest.raises(ValueError, match="an empty text"):
        windows(tokenizer, "")


def with_tokenizer(**parts) -> zl.Zamba:
    inner = Inner(models.BPE(vocab={letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[]))
    for name, part in (dict(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=False)) | parts).items():
        setattr(inner, name, part)
    model = make_model(BASE)
    model.tokenizer = zl.Tokenizer(inner)
    return model


@pytest.mark.parametrize(
    "model, options, sentence",
    [
        (make_model(BASE), {}, "needs a model with a tokenizer.json"),
        (with_tokenizer(normalizer=normalizers.NFC()), {}, "breaks no normaliser"),
        (with_tokenizer(pre_tokenizer=pre_tokenizers.Whitespace()), {}, "breaks words cut by"),
        (with_tokenizer(pre_tokenizer=pre_tokenizers.ByteLevel(add_prefix_space=True)), {}, "breaks words cut by"),
        (with_tokenizer(model=models.WordLevel({"a": 0}, "a")), {}, "breaks BPE over bytes"),
        (with_tokenizer(), dict(dtype="int8"), "dtype must be one of float32, float16: got 'int8'"),
        (zl.quantize(make_model(BASE).float(), bits=8, keep=()), {}, "before it was quantised"),
    ],
)
def test_a_model_that_a_page_cannot_run_is_refused_with_a_sentence(tmp_path, model, options, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        zl.page(model, tmp_path / "page.html", **options)
    assert not (tmp_path / "page.html").exists()


def test_the_vocabulary_of_a_page_is_the_tokenizers():
    words = vocabulary(with_tokenizer().tokenizer)
    assert len(words["pieces"]) == 256 and words["letters"][65] == "A" and words["bos"] is None
