"""Laws of the tokenizer: nothing is lost, nothing is split, nothing is hidden."""
import random

import pytest

from zamba_lab import corpora
from zamba_lab.tokenizer import Tokenizer

TEXTS = ["def f(x):\n    return x\n" * 4, "the prose of the lab, and the rest\n"]
AWKWARD = ["", " ", "\n\n\n   x", "a\tb\r\n", "<s>not special</s><pad>", "naïve – 日本語 👩‍🔬 \N{REPLACEMENT CHARACTER}.", "\x00\x1f\x7f"]


@pytest.fixture(scope="module")
def tokenizer():
    return corpora.train_tokenizer(TEXTS, vocab_size=280)


def random_ids(tokenizer, seed: int, n: int = 60) -> list[int]:
    return random.Random(seed).choices(range(tokenizer.vocab_size), k=n)


@pytest.mark.parametrize("text", AWKWARD + TEXTS)
def test_decode_undoes_encode(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode(text) == [tokenizer.bos_id, *tokenizer.encode(text, add_bos=False)]


@pytest.mark.parametrize("text", AWKWARD + TEXTS)
def test_stream_joins_to_decode_and_never_splits_a_character(tokenizer, text):
    ids = tokenizer.encode(text)
    pieces = list(tokenizer.stream(iter(ids)))
    assert "".join(pieces) == text
    if "\N{REPLACEMENT CHARACTER}" not in text:
        assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


@pytest.mark.parametrize("seed", range(8))
def test_stream_joins_to_decode_on_any_ids(tokenizer, seed):
    ids = random_ids(tokenizer, seed)
    assert "".join(tokenizer.stream(ids)) == tokenizer.decode(ids)


def test_stream_gives_a_word_as_soon_as_it_is_there(tokenizer):
    ids = tokenizer.encode("ab", add_bos=False)
    given = tokenizer.stream(iter(ids))
    assert next(given) == tokenizer.decode(ids[:1])


def test_pieces_are_printable_one_for_each_id(tokenizer):
    ids = list(range(tokenizer.vocab_size))
    pieces = tokenizer.pieces(ids)
    assert len(pieces) == len(ids) and pieces[:3] == ["<pad>", "<s>", "</s>"]
    assert all(piece and piece.isprintable() and " " not in piece for piece in pieces), pieces
    text = " é\n\t"
    assert "".join(tokenizer.pieces(tokenizer.encode(text, add_bos=False))) in ("·<C3><A9>⏎⇥", "·é⏎⇥")


def test_load_undoes_save(tokenizer, tmp_path):
    file = tokenizer.save(tmp_path / "new")
    for source in (file, file.parent, str(file)):
        again = Tokenizer.load(source)
        assert again.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0]) and again.vocab_size == tokenizer.vocab_size == 280


@pytest.mark.parametrize("ids", [[-1], [280], [0, 1, 10**6]])
def test_ids_out_of_the_vocabulary_are_refused(tokenizer, ids):
    for use in (tokenizer.decode, tokenizer.pieces, lambda ids: list(tokenizer.stream(ids))):
        with pytest.raises(ValueError, match="vocab_size=280"):
            use(ids)


def test_text_that_is_no_string_is_refused(tokenizer):
    with pytest.raises(ValueError, match="one string: got bytes"):
        tokenizer.encode(b"x")


def test_a_missing_or_broken_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(ValueError, match="must hold a tokenizer.*17 characters"):
        Tokenizer.load(tmp_path)
