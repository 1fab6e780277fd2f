"""Laws of a step's tensors: the next tokens are the targets, pieces and processes share one batch, documents stand alone."""

import numpy as np
import pytest
import torch

from zamba_lab.train import Mixture, TrainConfig
from zamba_lab.train.batches import IGNORE, micro_batches, prefetch, split_documents

TOKENS = np.arange(1000, dtype=np.uint16)
DATA = Mixture.of(TOKENS)
CONFIG = TrainConfig(batch=6, length=37, seed=5)


def test_targets_are_the_next_tokens():
    ids, targets = DATA.batch(4, CONFIG)
    assert ids.shape == targets.shape == (6, 37) and ids.dtype == torch.int64
    torch.testing.assert_close(targets, ids + 1)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_processes_together_see_what_one_would(size):
    whole = DATA.batch(3, CONFIG)[0]
    for rank in range(size):
        torch.testing.assert_close(DATA.batch(3, CONFIG, rank, size)[0], whole[rank::size])


@pytest.mark.parametrize("accumulate", [1, 2, 4, 6])
def test_pieces_joined_are_the_batch(accumulate):
    from dataclasses import replace

    pieces = micro_batches(DATA, 2, replace(CONFIG, accumulate=accumulate), None)
    assert len(pieces) == accumulate
    torch.testing.assert_close(torch.cat([ids for ids, _ in pieces]), DATA.batch(2, CONFIG)[0])


@pytest.mark.parametrize("alike", [True, False])
def test_windows_are_cut_at_documents_and_each_token_is_still_predicted_once(alike):
    bos = 1
    ids = torch.tensor([[1, 5, 6, 1, 7, 1, 1, 8], [9, 9, 9, 9, 9, 9, 9, 1], [2, 3, 4, 5, 6, 7, 8, 9]])
    targets = torch.cat([ids[:, 1:], torch.full((3, 1), 4)], dim=1)
    pieces = split_documents(ids, targets, bos, alike)
    rows = [(row[aims != IGNORE].tolist(), aims[aims != IGNORE].tolist()) for part in pieces for row, aims in zip(*part)]
    expected = [
        ([1, 5, 6], [5, 6, 1]),
        ([1, 7], [7, 1]),
        ([1], [1]),
        ([1, 8], [8, 4]),
        ([9] * 7, [9] * 6 + [1]),
        ([1], [4]),
        ([2, 3, 4, 5, 6, 7, 8, 9], [3, 4, 5, 6, 7, 8, 9, 4]),
    ]
    assert sorted(rows) == sorted(expected) and len(pieces) == (3 if alike else 1)


def test_ahead_gives_every_step_in_order_and_passes_errors_on():
    assert list(prefetch(lambda step: [step * step], range(3, 8))) == [(k, [k * k]) for k in range(3, 8)]
    assert list(prefetch(lambda step: [], range(0))) == []
    with pytest.raises(ZeroDivisionError):
        list(prefetch(lambda step: [1 // (step - 5)], range(3, 8)))
