"""Laws of the vocabulary and of packing."""

import numpy as np
import pytest

from zamba_lab import corpora

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
