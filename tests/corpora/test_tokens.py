"""Laws of the vocabulary and of packing."""

import json
import time

import numpy as np
import pytest
from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Inner

from zamba_lab import corpora
from zamba_lab.corpora import tokens
from zamba_lab.corpora.stdlib import stdlib_sources
from zamba_lab.tokenizer import Tokenizer

TEXTS = ["def f(x):\n    return x + 1\n", "class A:\n    def g(self):\n        return self.x\n" * 3, "naïve café – 日本語\n"]


def test_the_same_texts_give_the_same_vocabulary(tmp_path):
    files = [corpora.train_tokenizer(TEXTS, vocab_size=300).save(tmp_path / name) for name in "ab"]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_special_tokens_come_first():
    tokenizer = corpora.train_tokenizer(TEXTS, vocab_size=280)
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (0, 1, 2, 280)


def test_a_vocabulary_smaller_than_the_bytes_is_refused():
    with pytest.raises(ValueError, match="at least 259.*got 258"):
        corpora.train_tokenizer(TEXTS, vocab_size=258)


def test_packing_loses_nothing_and_marks_each_document():
    tokenizer = corpora.train_tokenizer(TEXTS, vocab_size=300)
    packed = corpora.pack(TEXTS, tokenizer)
    assert packed.tokens.dtype == np.uint16
    assert packed.n_bytes == sum(len(text.encode()) for text in TEXTS)
    (starts,) = np.nonzero(packed.tokens == tokenizer.bos_id)
    assert starts[0] == 0 and starts[-1] == len(packed.tokens) - 1
    assert [tokenizer.decode(packed.tokens[a:b]) for a, b in zip(starts, starts[1:])] == TEXTS


def test_packing_nothing_is_refused():
    with pytest.raises(ValueError, match="0 texts"):
        corpora.pack([], corpora.train_tokenizer(TEXTS, vocab_size=300))


# --- long words, long texts ---------------------------------------------------------------------------------------

LONG = {
    "a word": "x" * 160_000,
    "blanks": " " * 160_000,
    "line ends": "\n" * 160_000,
    "signs": "=" * 160_000,
    "a word of two letters": "ab" * 80_000,
    "signs and blanks": ("#" * 1500 + "\n" + " " * 1500) * 50,
    "words": "a word and another\n" * 8_000,
    "letters beyond ASCII": "日本" * 40_000,
}


@pytest.mark.parametrize("kind", LONG)
def test_no_word_that_training_sees_grows_with_the_text(kind):
    """Merging costs the square of a word's length, so bounded words make the work linear."""
    text = f"def f({LONG[kind]}):\n"
    parts = list(tokens.stretches(text))
    assert "".join(parts) == text and len(parts) <= 2 + len(text) // 1024
    cut = json.loads(corpora.train_tokenizer(["x"], 259).to_bytes())["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
    words = pre_tokenizers.Split(Regex(cut), behavior="isolated")
    assert max(len(word) for part in parts if part for word, _ in words.pre_tokenize_str(part)) <= 2 * 1024 + 2
    if kind == "words":
        assert parts == [text]


@pytest.mark.parametrize("unit", ["x", " ", "\n", "ab", "=-"])
def test_training_and_encoding_take_time_that_grows_with_the_text_and_not_with_its_square(unit):
    def seconds(count: int) -> float:
        text = unit * (count // len(unit))
        start = time.perf_counter()
        ids = corpora.train_tokenizer([text], 400).encode(text, add_bos=False)
        assert 0 < len(ids) <= count
        return time.perf_counter() - start

    seconds(1000)
    short, long = min(seconds(50_000) for _ in range(3)), min(seconds(800_000) for _ in range(2))
    assert long < 5 * 16 * short + 0.2, (short, long)  # the square would be 256 times as long


def test_a_text_that_is_no_unicode_is_refused_by_training():
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        corpora.train_tokenizer(["good", "\ud800"], 300)


@pytest.fixture(scope="module")
def python():
    texts = [document.text for document in stdlib_sources()][:40]
    return texts, {"ours": corpora.train_tokenizer(texts, 600), "gpt2": gpt2_like(texts)}


def gpt2_like(texts) -> Tokenizer:
    inner = Inner(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=600, special_tokens=["<|endoftext|>"], show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        ),
    )
    return Tokenizer(inner)


@pytest.mark.parametrize("kind", ["ours", "gpt2"])
@pytest.mark.parametrize("size", [100, 5000])
def test_a_long_text_is_cut_where_no_word_is(python, kind, size, monkeypatch):
    monkeypatch.setattr(tokens, "PIECE", size)
    texts, tokenizer = python[0], python[1][kind]
    text = "".join(texts[:12])
    parts = list(tokens.pieces(text, size))
    assert len(parts) > 3 and "".join(parts) == text and max(map(len, parts)) <= 2 * size
    ids = tokens.encode(text, tokenizer)
    assert ids.dtype == np.uint16 and tokenizer.decode(ids) == text
    if size > 100:  # else some piece of a table has no border in it
        assert ids.tolist() == tokenizer.encode(text, add_bos=False)


def test_pieces_lose_nothing_where_there_is_no_place_to_cut():
    assert list(tokens.pieces("x" * 23, 5)) == ["x" * 10, "x" * 10, "xxx"]
    assert list(tokens.pieces("", 5)) == [""]
