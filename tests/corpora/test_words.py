"""Fast encoding gives the ids that the library gives."""

import random
import unicodedata

import numpy as np
import pytest
from hypothesis import given, strategies as st

from zamba_lab import corpora
from zamba_lab.corpora import words
from zamba_lab.corpora.stdlib import stdlib_sources
from zamba_lab.tokenizer import Tokenizer


def gpt2_like(texts) -> Tokenizer:
    from tokenizers import Tokenizer as Inner, decoders, models, pre_tokenizers, trainers

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


TEXTS = [document.text for document in stdlib_sources()][:40]
TOKENIZERS = {"ours": corpora.train_tokenizer(TEXTS, 600), "gpt2": gpt2_like(TEXTS)}


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]


def assert_same(tokenizer, text):
    assert words.WordEncoder(tokenizer).encode(text).tolist() == tokenizer.encode(text, add_bos=False)


def test_real_text_has_the_ids_of_the_library(tokenizer):
    encoder = words.WordEncoder(tokenizer)
    assert words.word_rule(tokenizer)[0] is not None  # the fast way is taken
    for text, ids in zip(TEXTS, tokenizer.encode_batch(TEXTS, add_bos=False)):
        np.testing.assert_array_equal(encoder.encode(text), ids)


def test_every_character_of_the_plane_cuts_words_as_in_the_library(tokenizer):
    codes = [c for c in map(chr, range(0x10000)) if unicodedata.category(c) != "Cs" and not words.unstable().match(c)]
    assert len(codes) > 40_000
    rule, inner = words.word_rule(tokenizer)
    library = tokenizer._vocabulary._inner.pre_tokenizer
    for at in range(0, len(codes), 2000):
        text = "".join(f"a{c} {c}{c}1{c}\n" for c in codes[at : at + 2000])
        cut, start = [], 0
        for _, (_, end) in library.pre_tokenize_str(text):  # byte-level pieces: offsets in characters
            cut.append(text[start:end]) if end > start else None
            start = max(start, end)
        assert [word for word in rule.findall(text)] == cut


@given(st.text(alphabet=st.sampled_from("ab é日1²_ \n\t\r\x0b\x1c\x85\u00a0\u2028.,(\"'\U0001f600\u0301sSſ"), max_size=60))
def test_any_text_has_the_ids_of_the_library(text):
    for tokenizer in TOKENIZERS.values():
        assert_same(tokenizer, text)


def test_special_tokens_are_not_read_out_of_a_text(tokenizer):
    assert_same(tokenizer, "before <s> between </s> after <|endoftext|>")


def test_other_tokenizers_go_through_the_library(tmp_path):
    from tokenizers import Tokenizer as Inner, models, pre_tokenizers, trainers

    inner = Inner(models.WordLevel(unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.train_from_iterator(TEXTS[:2], trainers.WordLevelTrainer(special_tokens=["[UNK]", "<s>"], show_progress=False))
    tokenizer = Tokenizer(inner)
    assert words.word_rule(tokenizer) == (None, None)
    assert_same(tokenizer, TEXTS[0])


@pytest.mark.parametrize("expression", [r"(a|b)+", r"(?i:x)|.", r"\p{Han}+", r"[^\S]x", r"\d+"])
def test_an_expression_that_re_may_read_otherwise_is_left_to_the_library(expression):
    assert words._translated(expression) is None


def test_what_an_expression_leaves_between_its_words_is_not_lost():
    from tokenizers import Regex, Tokenizer as Inner, models, pre_tokenizers

    inner = Inner.from_str(TOKENIZERS["ours"].to_bytes().decode())
    assert isinstance(inner.model, models.BPE)
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(r"\p{L}+"), behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    assert_same(Tokenizer(inner), "words, and 12 signs: between them\n")


@pytest.mark.parametrize("size, longest", [(100, 10_000), (5000, 10_000), (100, 150)])
def test_a_long_text_is_cut_where_no_word_is(tokenizer, size, longest, monkeypatch):
    monkeypatch.setattr(words, "PIECE", size)
    monkeypatch.setattr(words, "LONG_PIECE", longest)
    text = "".join(TEXTS[:12])
    found = list(words.pieces(text, size, longest))
    assert len(found) > 3 and "".join(found) == text and max(map(len, found)) <= longest
    if longest > 150:  # else some piece of a table has no border in it
        assert_same(tokenizer, text)


def test_pieces_lose_nothing_where_there_is_no_place_to_cut():
    assert list(words.pieces("x" * 23, 5, 10)) == ["x" * 10, "x" * 10, "xxx"]


def test_words_are_forgotten_when_there_are_too_many(monkeypatch):
    monkeypatch.setattr(words, "REMEMBERED", 50)
    encoder = words.WordEncoder(TOKENIZERS["ours"])
    for text, ids in zip(TEXTS[:5], TOKENIZERS["ours"].encode_batch(TEXTS[:5], add_bos=False)):
        np.testing.assert_array_equal(encoder.encode(text), ids)
    rng = random.Random(0)
    encoder.encode(" ".join(str(rng.random()) for _ in range(10)))
    assert max(map(len, encoder._known)) <= words.LONG_WORD
