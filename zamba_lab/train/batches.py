"""A step's batch in pieces: cut at documents or not, in how many; and one step ahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from zamba_lab.ops.loss import IGNORE  # the target of padding: it has no part in the loss
from zamba_lab.train.config import TrainConfig
from zamba_lab.train.labelled import Labelled
from zamba_lab.train.mixture import Mixture

Piece = tuple[Tensor, Tensor]  # ids (b, l) and targets (b, l), int64


def pieces_at(data: Mixture | Labelled, step: int, config: TrainConfig, bos_id: int | None, rank: int = 0, size: int = 1) -> list[Piece]:
    """A step's batch in the pieces that are computed one after the other: `accumulate` of them, or more with `documents`.

    Processes go in step, so if there are several each makes the same number of pieces.
    """
    ids, targets = data.batch(step, config, rank, size)
    pieces = list(zip(ids.tensor_split(config.accumulate), targets.tensor_split(config.accumulate)))
    pieces = [piece for piece in pieces if len(piece[0])]
    if config.documents:
        pieces = [part for piece in pieces for part in by_documents(*piece, bos_id, alike=size == 1)]
    return pieces


def by_documents(ids: Tensor, targets: Tensor, bos_id: int, alike: bool = True) -> list[Piece]:
    """Cut every window at its document starts into rows of their own, filled up on the right.

    A causal model cannot look to the right, so each document comes out as if it were alone: state, convolution and
    attention begin anew. Each token of the window is still predicted once; a document's last one predicts the next start.

    Args:
        ids, targets: (b, l).
        alike: put rows of similar length (the shortest over half the longest) together, longest first, instead of all into
            one piece: less padding, more pieces.
    """
    rows = []
    for row, aims in zip(ids, targets):
        starts = torch.nonzero(row == bos_id).flatten().tolist()
        edges = [0, *[start for start in starts if start], len(row)]
        rows += [(row[a:b], aims[a:b]) for a, b in zip(edges, edges[1:])]
    if not alike:
        return [_filled_up(rows)]
    rows.sort(key=lambda row: -len(row[0]))  # stable: equal lengths stay in order
    groups: list[list[Piece]] = []
    for row in rows:
        if not groups or 2 * len(row[0]) <= len(groups[-1][0][0]):
            groups.append([])
        groups[-1].append(row)
    return [_filled_up(group) for group in groups]


def _filled_up(rows: list[Piece]) -> Piece:
    ids = torch.zeros(len(rows), max(len(row) for row, _ in rows), dtype=torch.int64)
    targets = torch.full_like(ids, IGNORE)
    for k, (row, aims) in enumerate(rows):
        ids[k, : len(row)], targets[k, : len(row)] = row, aims
    return ids, targets


def ahead(make: Callable[[int], list[Piece]], steps: Iterable[int]) -> Iterator[tuple[int, list[Piece]]]:
    """(step, make(step)) in order; the next is being made in a thread while the caller works on the last."""
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        coming: list = []
        for step in steps:
            coming.append((step, pool.submit(make, step)))
            if len(coming) == 2:
                number, found = coming.pop(0)
                yield number, found.result()
        for number, found in coming:
            yield number, found.result()
