"""How well a model predicts text it has not seen, in bits per byte: comparable between tokenizers, and with a compressor.

    bits per byte = -sum_t log2 p(token_t | tokens before it) / bytes of the text

The end of each document is one of the tokens, so the sum is the length of a code for the documents, ends included.
"""
from __future__ import annotations

import lzma
import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zamba_lab.corpora import Packed
from zamba_lab.tokenizer import Tokenizer
from zamba_lab.train.batches import IGNORE, by_documents


@torch.no_grad()
def packed_bits_per_byte(model: nn.Module, packed: Packed, length: int, batch: int = 16, bos_id: int | None = None) -> float:
    """The quick measure, for the course of training: windows side by side, each read from an empty memory.

    bos_id: the start token, if a window is to be cut at documents as `TrainConfig.documents` cuts it; None: it is read through.
    """
    n = len(packed.tokens) - 1
    full = n - n % length
    windows = [packed.tokens[start:start + length + 1] for start in range(0, full, length)]
    batches = [np.stack(windows[at:at + batch]) for at in range(0, len(windows), batch)]
    if full < n:
        batches.append(packed.tokens[None, full:])
    pieces = [(rows[:, :-1], rows[:, 1:]) for rows in (torch.from_numpy(one.astype(np.int64)) for one in batches)]
    if bos_id is not None:
        pieces = [part for piece in pieces for part in by_documents(*piece, bos_id)]
    return sum(float(_bits(model, *piece).sum()) for piece in pieces) / packed.n_bytes


def _bits(model: nn.Module, ids: Tensor, targets: Tensor) -> Tensor:
    """-log2 p of each target, 0 where there is none. All (b, l); the result in float64, on the CPU."""
    logits = model(ids.to(next(model.parameters(), ids).device))
    nats = F.cross_entropy(logits.flatten(0, 1), targets.flatten().to(logits.device), reduction="none", ignore_index=IGNORE)
    return nats.cpu().double().unflatten(0, targets.shape) / math.log(2)


@torch.no_grad()
def document_bits(model: nn.Module, texts: Sequence[str], tokenizer: Tokenizer, window: int = 512, stride: int = 256,
                  batch: int = 16) -> np.ndarray:
    """The code length of each document, read alone from its start through overlapping windows.

    A token is predicted from at least `window - stride` tokens before it, or from all there are; never from another document.

    Args:
        window: tokens read at once, as in training.
        stride: tokens by which the window moves on, 1..window; each is scored once.

    Returns:
        (number of texts,) bits, the end of the document included.
    """
    if not 1 <= stride <= window:
        raise ValueError(f"stride must be in 1..window: got stride={stride}, window={window}")
    documents = [ids + [tokenizer.bos_id] for ids in tokenizer.encode_batch(list(texts))]
    pieces = sorted(_pieces(documents, window, stride), key=lambda piece: len(piece[1]))
    bits = np.zeros(len(documents))
    for at in range(0, len(pieces), batch):
        some = pieces[at:at + batch]
        rows = torch.zeros(len(some), max(len(ids) for _, ids, _ in some), dtype=torch.int64)
        for row, (_, ids, _) in zip(rows, some):
            row[:len(ids)] = torch.tensor(ids)           # padded at the end, where a causal model cannot look
        for found, (document, ids, known) in zip(_bits(model, rows[:, :-1], rows[:, 1:]), some):
            bits[document] += float(found[known:len(ids) - 1].sum())
    return bits


def _pieces(documents: list[list[int]], window: int, stride: int) -> Iterator[tuple[int, list[int], int]]:
    """(document, ids of one window and the one after it, how many of its predictions an earlier window has made)."""
    for document, ids in enumerate(documents):
        done = 0                                          # predictions made: of ids 1..done
        while done < len(ids) - 1:
            start = max(0, done - (window - stride))
            end = min(start + window, len(ids) - 1)
            yield document, ids[start:end + 1], done - start
            done = end


def xz_bits(texts: Sequence[str], known: Sequence[str] = ()) -> int:
    """The bits that `xz -9` takes for texts in one file, after other texts that it has already been given.

    With `known`, the difference between the files with and without the texts: what a compressor gains from having
    seen what a model was trained on. The dictionary of level 9 is 64 MiB.
    """
    before = "".join(known).encode()
    return 8 * (_xz(before + "".join(texts).encode()) - (_xz(before) if known else 0))


def xz_bits_per_document(texts: Sequence[str]) -> list[int]:
    """The bits that `xz -9` takes for each text in a file of its own."""
    return [8 * _xz(text.encode()) for text in texts]


def _xz(content: bytes) -> int:
    return len(lzma.compress(content, preset=9))
