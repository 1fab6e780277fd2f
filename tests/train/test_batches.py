"""Laws of the windows that training sees."""
import numpy as np
import pytest
import torch

from zamba_lab.train import TrainConfig
from zamba_lab.train.batches import batch_at

TOKENS = np.arange(1000, dtype=np.uint16)
CONFIG = TrainConfig(batch=3, length=37, seed=5)


def test_targets_are_the_next_tokens():
    ids, targets = batch_at(TOKENS, 4, CONFIG)
    assert ids.shape == targets.shape == (3, 37) and ids.dtype == torch.int64
    torch.testing.assert_close(targets, ids + 1)


def test_an_epoch_shows_each_window_once():
    per_epoch = 999 // 37 - 1
    first = np.concatenate([batch_at(TOKENS, step, CONFIG)[0][:, 0] for step in range(30)])
    epochs = [np.sort(first[k * per_epoch:(k + 1) * per_epoch]) for k in range(3)]
    for starts in epochs:
        assert set(np.diff(starts)) == {37}, starts
    assert len({starts[0] for starts in epochs}) > 1, "each epoch is cut at another offset"


def test_a_step_is_a_function_of_seed_and_number_alone():
    in_order = [batch_at(TOKENS, step, CONFIG)[0] for step in range(20)]
    for step in (19, 3, 11):
        torch.testing.assert_close(batch_at(TOKENS, step, CONFIG)[0], in_order[step])
    assert not torch.equal(in_order[0], batch_at(TOKENS, 0, TrainConfig(batch=3, length=37, seed=6))[0])


def test_a_memory_mapped_array_gives_the_same_batches(tmp_path):
    np.save(tmp_path / "tokens.npy", TOKENS)
    mapped = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    torch.testing.assert_close(batch_at(mapped, 2, CONFIG), batch_at(TOKENS, 2, CONFIG))


def test_too_few_tokens_are_refused():
    with pytest.raises(ValueError, match="more than 2 [*] length tokens: got 74 tokens, length=37"):
        batch_at(TOKENS[:74], 0, CONFIG)
    batch_at(TOKENS[:75], 0, CONFIG)
