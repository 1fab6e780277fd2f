"""Laws of the measure of a run: packed text is scored once, whatever the windows and the batch."""

import numpy as np
import pytest
from train.tiny import Elsewhere, Uniform, random_packed, tiny_model, with_documents

from zamba_lab.corpora import Packed
from zamba_lab.train import TrainConfig, packed_bits_per_byte, read_metrics, train


def test_text_is_brought_to_where_the_model_is():
    packed = random_packed(60)
    assert packed_bits_per_byte(Elsewhere(256), packed, 8) == packed_bits_per_byte(Uniform(256), packed, 8)


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


def test_packed_is_a_plain_pair():
    tokens, n_bytes = Packed(np.zeros(3), 3)
    assert len(tokens) == n_bytes
