"""Laws of bits per byte: each token is scored once, from as much as it may see, and a known code gives a known length."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from train.tiny import random_packed, tiny_model, with_documents
from zamba_lab import corpora
from zamba_lab.corpora import Packed
from zamba_lab.train import TrainConfig, document_bits, packed_bits_per_byte, read_metrics, train, xz_bits, xz_bits_per_document

TEXTS = ["abcabd" * 5, "", "x", "other words " * 3]


class Uniform(torch.nn.Module):
    """Every token is as likely as every other."""

    def __init__(self, vocab_size: int):
        super().__init__()
        self.vocab_size = vocab_size

    def forward(self, ids):
        return torch.zeros(*ids.shape, self.vocab_size)


class Elsewhere(Uniform):
    """A model whose weights are on another device than the text: it refuses what is not brought there."""

    def __init__(self, vocab_size: int):
        super().__init__(vocab_size)
        self.weight = torch.nn.Parameter(torch.empty(1, device="meta"))

    def forward(self, ids):
        assert ids.device == self.weight.device
        return super().forward(ids)  # as numbers that can be looked at


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
    packed = random_packed(60)
    assert packed_bits_per_byte(Elsewhere(256), packed, 8) == packed_bits_per_byte(Uniform(256), packed, 8)


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


@pytest.mark.parametrize("length, batch", [(8, 1), (8, 3), (100, 4)])
def test_packed_text_is_scored_whole_whatever_the_windows(length, batch):
    packed = random_packed(60)
    found = packed_bits_per_byte(Uniform(32), packed, length, batch)
    assert found == pytest.approx(59 * 5.0 / packed.n_bytes)


def test_packed_evaluation_does_not_depend_on_the_batch():
    model, packed = tiny_model().double().eval(), random_packed(60)
    assert packed_bits_per_byte(model, packed, 8, 1) == pytest.approx(packed_bits_per_byte(model, packed, 8, 5), rel=1e-12)


@pytest.mark.parametrize("length, batch", [(8, 1), (11, 4), (100, 2)])
def test_cut_at_documents_each_is_read_as_if_alone(length, batch):
    """Its first token is predicted by the document before it, which is why the pieces begin at start tokens."""
    model, tokens = tiny_model().double().eval(), with_documents(60)
    found = packed_bits_per_byte(model, Packed(tokens, 120), length, batch, bos_id=1)
    edges = sorted({*range(0, 59, length), *(k for k in range(59) if tokens[k] == 1), 59})
    alone = [packed_bits_per_byte(model, Packed(tokens[a : b + 1], 120), 100) for a, b in zip(edges, edges[1:])]
    assert found == pytest.approx(sum(alone), rel=1e-12)
    assert abs(found - packed_bits_per_byte(model, Packed(tokens, 120), length, batch)) > 1e-6


def test_a_run_with_documents_evaluates_with_documents(tmp_path):
    packed, data = Packed(with_documents(60), 120), with_documents(400)
    config = TrainConfig(steps=1, batch=2, length=16, schedule="constant", max_epochs=None, documents=True)
    model = train(tiny_model().double(), data, config, tmp_path, packed)
    assert read_metrics(tmp_path)[-1]["validation_bits_per_byte"] == packed_bits_per_byte(model, packed, 16, bos_id=1)


def test_xz_given_the_same_text_before_needs_almost_nothing():
    random = np.random.default_rng(0)
    text = "".join(chr(97 + k) for k in random.integers(0, 26, 4000))
    alone, after = xz_bits([text]), xz_bits([text], known=[text])
    assert 8 * 2000 < alone < 8 * 4000 and after < alone / 20, (alone, after)
    assert sum(xz_bits_per_document([text[:2000], text[2000:]])) > alone


def test_a_stride_longer_than_the_window_is_refused(tokenizer):
    with pytest.raises(ValueError, match="stride=5, window=4"):
        document_bits(Uniform(256), TEXTS, tokenizer, window=4, stride=5)


def test_packed_is_a_plain_pair():
    tokens, n_bytes = Packed(np.zeros(3), 3)
    assert len(tokens) == n_bytes
