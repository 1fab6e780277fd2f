"""A step's batch in micro-batches, cut at documents or not, prepared one step ahead; and the evaluation while training."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor, nn

from zamba_lab.corpora import Packed
from zamba_lab.evaluate import token_bits
from zamba_lab.ops.loss import IGNORE  # the target of padding: it has no part in the loss
from zamba_lab.train.config import TrainConfig
from zamba_lab.train.mixture import Labelled, Mixture

MicroBatch = tuple[Tensor, Tensor]  # ids (b, l) and targets (b, l), int64


def micro_batches(
    data: Mixture | Labelled, step: int, config: TrainConfig, bos_id: int | None, rank: int = 0, size: int = 1
) -> list[MicroBatch]:
    """The micro-batches of a step, to be computed one after the other: `accumulate` of them, or more with `documents`.

    Each of `size` processes makes the same number, for they exchange gradients together.
    """
    ids, targets = data.batch(step, config, rank, size)
    batches = [pair for pair in zip(ids.tensor_split(config.accumulate), targets.tensor_split(config.accumulate)) if len(pair[0])]
    if config.documents:
        batches = [part for pair in batches for part in split_documents(*pair, bos_id, by_length=size == 1)]
    return batches


def split_documents(ids: Tensor, targets: Tensor, bos_id: int, by_length: bool = True) -> list[MicroBatch]:
    """Cut every window at its document starts into rows of their own, padded on the right.

    A causal model cannot look to the right, so each document is computed as if it were alone: state, convolution and
    attention begin anew. Each token of the window is still predicted once; a document's last one predicts the next start.

    Args:
        ids, targets: (b, l).
        by_length: put rows of similar length (the shortest over half the longest) together, longest first, instead of all
            into one micro-batch: less padding, more micro-batches.
    """
    rows = []
    for row, row_targets in zip(ids, targets):
        starts = torch.nonzero(row == bos_id).flatten().tolist()
        edges = [0, *[start for start in starts if start], len(row)]
        rows += [(row[a:b], row_targets[a:b]) for a, b in zip(edges, edges[1:])]
    if not by_length:
        return [_padded(rows)]
    rows.sort(key=lambda row: -len(row[0]))  # stable: equal lengths stay in order
    groups: list[list[MicroBatch]] = []
    for row in rows:
        if not groups or 2 * len(row[0]) <= len(groups[-1][0][0]):
            groups.append([])
        groups[-1].append(row)
    return [_padded(group) for group in groups]


def _padded(rows: list[MicroBatch]) -> MicroBatch:
    ids = torch.zeros(len(rows), max(len(row) for row, _ in rows), dtype=torch.int64)
    targets = torch.full_like(ids, IGNORE)
    for index, (row, row_targets) in enumerate(rows):
        ids[index, : len(row)], targets[index, : len(row)] = row, row_targets
    return ids, targets


def prefetch(make: Callable[[int], list[MicroBatch]], steps: Iterable[int]) -> Iterator[tuple[int, list[MicroBatch]]]:
    """(step, make(step)) in order; a thread makes the next while the caller works on the last."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        pending: list = []
        for step in steps:
            pending.append((step, pool.submit(make, step)))
            if len(pending) == 2:
                ready, future = pending.pop(0)
                yield ready, future.result()
        for ready, future in pending:
            yield ready, future.result()


@torch.no_grad()
def packed_bits_per_byte(model: nn.Module, packed: Packed, length: int, batch: int = 16, bos_id: int | None = None) -> float:
    """Bits per byte of held-out text, quickly: windows side by side, each read from an empty memory. Documents: `zamba_lab.evaluate`.

    bos_id: the start token, if a window is to be cut at documents as `TrainConfig.documents` cuts it; None: it is read through.
    """
    n = len(packed.tokens) - 1
    in_windows = n - n % length
    windows = [packed.tokens[start : start + length + 1] for start in range(0, in_windows, length)]
    stacks = [np.stack(windows[at : at + batch]) for at in range(0, len(windows), batch)]
    if in_windows < n:
        stacks.append(packed.tokens[None, in_windows:])
    batches = [(rows[:, :-1], rows[:, 1:]) for rows in (torch.from_numpy(stack.astype(np.int64)) for stack in stacks)]
    if bos_id is not None:
        batches = [part for pair in batches for part in split_documents(*pair, bos_id)]
    return sum(float(token_bits(model, *pair).sum()) for pair in batches) / packed.n_bytes
