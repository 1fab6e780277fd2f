"""How well a model predicts text it has not seen, in bits per byte: comparable between tokenizers, and with a compressor.

    bits per byte = -sum_t log2 p(token_t | tokens before it) / bytes of the text

The end of each document is one of the tokens, so the sum is the length of a code for the documents, ends included.
"""

from __future__ import annotations

import lzma
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from zamba_lab.corpora import Packed
from zamba_lab.ops.loss import token_nll
from zamba_lab.tokenizer import Tokenizer
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
    pieces = [(rows[:, :-1], rows[:, 1:]) for rows in (torch.from_numpy(one.astype(np.int64)) for one in batches)]
    if bos_id is not None:
        pieces = [part for piece in pieces for part in by_documents(*piece, bos_id)]
    return sum(float(_bits(model, *piece).sum()) for piece in pieces) / packed.n_bytes


def _bits(model: nn.Module, ids: Tensor, targets: Tensor) -> Tensor:
    """-log2 p of each target, 0 where there is none. All (b, l); the result in float64, on the CPU."""
    logits = model(ids.to(next(model.parameters(), ids).device))
    return token_nll(logits, targets).cpu().double() / math.log(2)


@torch.no_grad()
def document_bits(
    model: nn.Module,
    texts: Sequence[str],
    tokenizer: Tokenizer,
    window: int = 512,
    stride: int = 256,
    batch: int = 16,
    progress: bool = False,
) -> np.ndarray:
    """The code length of each document, read alone from its start through overlapping windows.

    A token is predicted from at least `window - stride` tokens before it, or from all there are; never from another document.

    Args:
        window: tokens read at once, as in training.
        stride: tokens by which the window moves on, 1..window; each is scored once.
        progress: show a bar.

    Returns:
        (number of texts,) bits, the end of the document included.
    """
    if not 1 <= stride <= window:
        raise ValueError(f"stride must be in 1..window: got stride={stride}, window={window}")
    documents = [ids + [tokenizer.bos_id] for ids in tokenizer.encode_batch(list(texts))]
    pieces = sorted(_pieces(documents, window, stride), key=lambda piece: len(piece[1]))
    bits = np.zeros(len(documents))
    for at in tqdm(range(0, len(pieces), batch), desc="reading", unit="batch", disable=not progress):
        some = pieces[at : at + batch]
        rows = torch.zeros(len(some), max(len(ids) for _, ids, _ in some), dtype=torch.int64)
        for row, (_, ids, _) in zip(rows, some):
            row[: len(ids)] = torch.tensor(ids)  # padded at the end, where a causal model cannot look
        for found, (document, ids, known) in zip(_bits(model, rows[:, :-1], rows[:, 1:]), some):
            bits[document] += float(found[known : len(ids) - 1].sum())
    return bits


class Score(NamedTuple):
    """What a text costs: its code length by the model, its end included, and by `xz -9`, both in bits per byte."""

    text: str
    bytes: int
    tokens: int
    bits_per_byte: float
    xz_bits_per_byte: float


def score_files(model: nn.Module, paths: Sequence[Path], window: int = 512, stride: int = 256, progress: bool = False) -> list[Score]:
    """`document_bits` of text files, each a document, and of all files below a folder, in the order of their names; of several the
    whole comes last, to xz one file.

    Raises ValueError if there is nothing to read, a file is not UTF-8, or the model has no tokenizer with a start token.
    """
    tokenizer = model.tokenizer
    if tokenizer is None or tokenizer.bos_id is None:
        raise ValueError(
            "scoring text needs a tokenizer beside the weights, one with a start token: this model has "
            f"{'none' if tokenizer is None else tokenizer}"
        )
    texts = {str(file): _text(file) for path in paths for file in _files(path)}
    if not any(texts.values()):
        raise ValueError(f"there is no text in {', '.join(map(str, paths))}")
    names = [name for name, text in texts.items() if text]
    bits = document_bits(model, [texts[name] for name in names], tokenizer, window, stride, progress=progress)
    counts = [len(ids) for ids in tokenizer.encode_batch([texts[name] for name in names])]  # the start stands for the end
    sizes = [len(texts[name].encode()) for name in names]
    xz = xz_bits_per_document([texts[name] for name in names])
    scores = [Score(*one[:3], one[3] / one[1], one[4] / one[1]) for one in zip(names, sizes, counts, bits.tolist(), xz)]
    if len(scores) > 1:
        total = sum(sizes)
        scores.append(Score("all", total, sum(counts), bits.sum().item() / total, xz_bits(list(texts.values())) / total))
    return scores


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise ValueError(f"there is no file or folder {str(path)!r}")
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(file)!r} is not UTF-8 text: {error}") from error


def _pieces(documents: list[list[int]], window: int, stride: int) -> Iterator[tuple[int, list[int], int]]:
    """(document, ids of one window and the one after it, how many of its predictions an earlier window has made)."""
    for document, ids in enumerate(documents):
        done = 0  # predictions made: of ids 1..done
        while done < len(ids) - 1:
            start = max(0, done - (window - stride))
            end = min(start + window, len(ids) - 1)
            yield document, ids[start : end + 1], done - start
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
