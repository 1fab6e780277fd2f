"""Requests that begin alike: what is common to them is read once, and what follows goes on from copies of its cache.

The few-shot examples of a task begin all its prompts, and a question begins all its answers. The rows become a forest: a
node is a stretch of tokens, its children are what follows it, a leaf ends one row. A hybrid's cache is small, so that copying it
costs less than reading again from about WORTH tokens on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor

from zamba_lab.cache import Cache
from zamba_lab.model import Zamba

WORTH = 32  # tokens not read again, from which a common beginning is a node of its own
DEEPEST = 8  # nodes above a leaf: each keeps its caches while the ones below it are read
TOKENS = 2048  # rows beyond a batch are read with it while they all have no more tokens than this


class Node(NamedTuple):
    """Tokens to read after the parent's. leaf: the index of the row that ends here, or None; then there are children."""

    ids: list[int]
    leaf: int | None
    children: list[Node]


def forest(rows: Sequence[Sequence[int]], own: Sequence[int], share: bool = True) -> list[Node]:
    """The rows as a forest by their common beginnings. own[i] >= 1: how many last tokens of row i lie in its leaf in any case."""
    heads = [tuple(row[: len(row) - n]) for row, n in zip(rows, own, strict=True)]
    order = sorted(range(len(rows)), key=heads.__getitem__)

    def grow(order: list[int], read: int, alike: int, depth: int) -> list[Node]:
        """Nodes for rows whose heads are alike in so many tokens, of which `read` are in nodes above."""
        nodes = []
        for _, some in groupby(order, lambda i: heads[i][alike : alike + 1]):
            group = list(some)
            first, last = heads[group[0]], heads[group[-1]]  # in order, so that these two have in common what all have
            end = len(os.path.commonprefix([first, last]))
            if len(group) == 1 or len(first) == alike or depth == DEEPEST:
                nodes += [Node(list(rows[i][read:]), i, []) for i in group]
            elif (len(group) - 1) * (end - read) >= WORTH:
                nodes.append(Node(list(first[read:end]), None, grow(group, end, end, depth + 1)))
            else:
                nodes += grow(group, read, end, depth)
        return nodes

    return grow(order, 0, 0, 0) if share else [Node(list(row), i, []) for i, row in enumerate(rows)]


@torch.no_grad()
def visit(
    model: Zamba, nodes: Sequence[tuple[int, Node]], cache: Cache | None, batch: int, at_leaves: Callable[[list[Node], Cache | None], None]
) -> None:
    """Read the nodes after the rows of the cache that they name, and what follows them.

    at_leaves: is given some leaves and a cache with a row for each, as it is before the leaf's own tokens. No more than `batch`
    rows are read together, unless they are so short that TOKENS allows more.
    """
    for some in _batches([pair for pair in nodes if pair[1].leaf is not None], cache, batch):
        at_leaves([node for _, node in some], fork(cache, [row for row, _ in some]))
    for some in _batches([pair for pair in nodes if pair[1].leaf is None], cache, batch):
        ids, mask = left_padded([node.ids for _, node in some], model)
        _, read = model.extend(ids, fork(cache, [row for row, _ in some]), mask, last_only=True)
        below = [(row, child) for row, (_, node) in enumerate(some) for child in node.children]
        visit(model, below, read, batch, at_leaves)


def fork(cache: Cache | None, rows: list[int]) -> Cache | None:
    """A cache whose row i goes on from row rows[i] of this one."""
    if cache is None or rows == list(range(cache.batch)):
        return cache
    return cache.map(lambda t: t[rows])


def left_padded(rows: Sequence[Sequence[int]], model: Zamba) -> tuple[Tensor, Tensor]:
    """Rows of tokens as ids and mask, (b, l) each, padded before their first token, where the model is."""
    device, longest = model.embedding.weight.device, max(map(len, rows))
    ids = torch.tensor([[0] * (longest - len(row)) + list(row) for row in rows], device=device)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    return ids, torch.arange(longest, device=device)[None] >= longest - lengths[:, None]


def _batches(nodes: list[tuple[int, Node]], cache: Cache | None, batch: int) -> Iterator[list[tuple[int, Node]]]:
    """The nodes, the longest first, so many at a time that a batch has little padding."""
    nodes = sorted(nodes, key=lambda pair: -len(pair[1].ids))
    past = 0 if cache is None else cache.length
    while nodes:
        rows = max(batch, TOKENS // (past + len(nodes[0][1].ids)))
        yield nodes[:rows]
        nodes = nodes[rows:]
