"""The measure of a run while it trains: bits per byte of packed text, see `evaluate.py`."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from zamba_lab.corpora import Packed
from zamba_lab.evaluate import token_bits
from zamba_lab.train.batches import by_documents


@torch.no_grad()
def packed_bits_per_byte(model: nn.Module, packed: Packed, length: int, batch: int = 16, bos_id: int | None = None) -> float:
    """The quick measure, for the course of training: windows side by side, each read from an empty memory.

    bos_id: the start token, if a window is to be cut at documents as `TrainConfig.documents` cuts it; None: it is read through.
    """
    n = len(packed.tokens) - 1
    full = n - n % length
    windows = [packed.tokens[start : start + length + 1] for start in range(0, full, length)]
    batches = [np.stack(windows[at : at + batch]) for at in range(0, len(windows), batch)]
    if full < n:
        batches.append(packed.tokens[None, full:])
    pieces = [(rows[:, :-1], rows[:, 1:]) for rows in (torch.from_numpy(batch.astype(np.int64)) for batch in batches)]
    if bos_id is not None:
        pieces = [part for piece in pieces for part in by_documents(*piece, bos_id)]
    return sum(float(token_bits(model, *piece).sum()) for piece in pieces) / packed.n_bytes
