"""Windows of a long array of ids: which ones step k sees is a function of the seed and k, so a run can go on anywhere."""
from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from zamba_lab.train.config import TrainConfig


def batch_at(tokens: np.ndarray, step: int, config: TrainConfig) -> tuple[Tensor, Tensor]:
    """The inputs and targets of one step.

    In each epoch the array is cut into windows from a new random offset, and each window is seen once, in random order.

    Args:
        tokens: (n,) ids, in memory or memory-mapped; n > 2 length.
        step: 0 or more.

    Returns:
        ids (b, l) and the ids one position later (b, l), int64.

    Raises:
        ValueError: the array is shorter than two windows.
    """
    per_epoch = (len(tokens) - 1) // config.length - 1          # one fewer than would fit: room for the offset
    if per_epoch < 1:
        raise ValueError(f"training needs more than 2 * length tokens: got {len(tokens)} tokens, length={config.length}")
    starts = []
    for k in range(step * config.batch, (step + 1) * config.batch):
        epoch, place = divmod(k, per_epoch)
        offset, order = _epoch(config.seed, epoch, config.length, per_epoch)
        starts.append(offset + order[place] * config.length)
    windows = np.stack([tokens[start:start + config.length + 1] for start in starts]).astype(np.int64)
    windows = torch.from_numpy(windows)
    return windows[:, :-1], windows[:, 1:]


@lru_cache(maxsize=2)
def _epoch(seed: int, epoch: int, length: int, per_epoch: int) -> tuple[int, np.ndarray]:
    random = np.random.default_rng((seed, epoch))
    return int(random.integers(length)), random.permutation(per_epoch)
