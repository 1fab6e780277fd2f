"""Laws of bits per byte: each token is scored once, from as much as it may see, and a known code gives a known length."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from train.tiny import Elsewhere, Uniform, tiny_model

from zamba_lab import corpora
from zamba_lab.evaluate import document_bits, xz_bits, xz_bits_per_document

TEXTS = ["abcabd" * 5, "", "x", "other words " * 3]


@pytest.fixture(scope="module")
def tokenizer():
    return corpora.train_tokenizer(TEXTS, vocab_size=259)


@pytest.mark.parametrize("window, stride", [(4, 4), (7, 3), (7, 1), (512, 256)])
def test_each_token_and_each_end_is_scored_once(tokenizer, window, stride):
    bits = document_bits(Uniform(256), TEXTS, tokenizer, window, stride, batch=3)
    n_tokens = np.array([len(text.encode()) + 1 for text in TEXTS])
    np.testing.assert_allclose(bits, 8.0 * n_tokens)


def test_text_is_brought_to_where_the_model_is(tokenizer):
    here, there = (document_bits(kind(256), TEXTS, tokenizer, 7, 3) for kind in (Uniform, Elsewhere))
    np.testing.assert_array_equal(there, here)


def test_a_window_longer_than_the_document_is_the_whole_forward(tokenizer):
    model = tiny_model(vocab_size=259).double().eval()
    ids = torch.tensor([tokenizer.encode(TEXTS[0]) + [tokenizer.bos_id]])
    with torch.no_grad():
        whole = F.cross_entropy(model(ids[:, :-1])[0], ids[0, 1:], reduction="sum") / math.log(2)
    found = document_bits(model, TEXTS, tokenizer, window=64, stride=32)
    assert found[0] == pytest.approx(float(whole), rel=1e-9)


def test_documents_do_not_see_each_other(tokenizer):
    model = tiny_model(vocab_size=259).double().eval()
    together = document_bits(model, TEXTS, tokenizer, window=7, stride=3)
    alone = [document_bits(model, [text], tokenizer, window=7, stride=3)[0] for text in TEXTS]
    np.testing.assert_allclose(together, alone, rtol=1e-9)


def test_xz_given_the_same_text_before_needs_almost_nothing():
    random = np.random.default_rng(0)
    text = "".join(chr(97 + k) for k in random.integers(0, 26, 4000))
    alone, after = xz_bits([text]), xz_bits([text], known=[text])
    assert 8 * 2000 < alone < 8 * 4000 and after < alone / 20, (alone, after)
    assert sum(xz_bits_per_document([text[:2000], text[2000:]])) > alone


def test_a_stride_longer_than_the_window_is_refused(tokenizer):
    with pytest.raises(ValueError, match="stride=5, window=4"):
        document_bits(Uniform(256), TEXTS, tokenizer, window=4, stride=5)


def test_text_in_the_pieces_of_another_tokenizer_is_not_scored():
    own, other = (corpora.train_tokenizer([text * 9], vocab_size=262) for text in ("abcabd", "zyzyzy"))
    model = tiny_model(vocab_size=262)
    model.tokenizer = own
    assert document_bits(model, TEXTS, own).shape == (4,)
    with pytest.raises(ValueError, match="the tokenizer of the texts must have the pieces that the weights were made with"):
        document_bits(model, TEXTS, other)
