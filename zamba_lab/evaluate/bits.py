"""How well a model predicts text it has not seen, in bits per byte: comparable between tokenizers, and with a compressor.

    bits per byte = -sum_t log2 p(token_t | tokens before it) / bytes of the text

The end of each document is one of the tokens, so the sum is the length of a code for the documents, ends included. The measure
during training is in `train/batches.py`.
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

from zamba_lab.checkpoints import check_tokenizer
from zamba_lab.ops.loss import token_nll
from zamba_lab.tokenizer import Tokenizer
from zamba_lab.tokenizer.texts import decode, text_files


def token_bits(model: nn.Module, ids: Tensor, targets: Tensor) -> Tensor:
    """-log2 p of each target, 0 where it is -100 (none). ids, targets and result: (b, l); the result in float64, on the CPU."""
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
    """The code length of each document, read from its start through overlapping windows, without the other documents.

    A token is predicted from at least `window - stride` tokens before it, or from all there are; never from another document.

    Args:
        tokenizer: the model's, with a start token, which also stands for the end of a document.
        window: tokens read together, as in training.
        stride: tokens by which the window moves on, 1..window; each is scored once.
        batch: windows read together.

    Returns: (number of texts,) bits, float64, the ends included. Raises ValueError if stride or the tokenizer does not fit.
    """
    if not 1 <= stride <= window:
        raise ValueError(f"stride must be in 1..window: got stride={stride}, window={window}")
    check_tokenizer(model, tokenizer, "the tokenizer of the texts")
    documents = [ids + [tokenizer.bos_id] for ids in tokenizer.encode_batch(list(texts))]
    pieces = sorted(_pieces(documents, window, stride), key=lambda piece: len(piece[1]))
    bits = np.zeros(len(documents))
    for at in tqdm(range(0, len(pieces), batch), desc="reading", unit="batch", disable=not progress):
        some = pieces[at : at + batch]
        rows = torch.zeros(len(some), max(len(ids) for _, ids, _ in some), dtype=torch.int64)
        for row, (_, ids, _) in zip(rows, some):
            row[: len(ids)] = torch.tensor(ids)  # padded at the end, which a causal model does not see
        for row_bits, (document, ids, known) in zip(token_bits(model, rows[:, :-1], rows[:, 1:]), some):
            bits[document] += float(row_bits[known : len(ids) - 1].sum())
    return bits


def _pieces(documents: list[list[int]], window: int, stride: int) -> Iterator[tuple[int, list[int], int]]:
    """(document, ids of one window and the one after it, how many of its predictions an earlier window has made)."""
    for document, ids in enumerate(documents):
        done = 0  # predictions made: of ids 1..done
        while done < len(ids) - 1:
            start = max(0, done - (window - stride))
            end = min(start + window, len(ids) - 1)
            yield document, ids[start : end + 1], done - start
            done = end


class Score(NamedTuple):
    """What a text costs: its code length by the model, its end included, and by `xz -9`, both in bits per byte.

    An empty text has 0 bytes and tokens, and None for both.
    """

    text: str
    bytes: int
    tokens: int
    bits_per_byte: float | None
    xz_bits_per_byte: float | None


def score_files(model: nn.Module, paths: Sequence[Path], window: int = 512, stride: int = 256, progress: bool = False) -> list[Score]:
    """`document_bits` of text files, each a document, in the order given; a folder stands for the files below it, sorted.

    `tokenizer/texts.py` says which files of a folder those are, and how their bytes become text. If there are several texts, a row
    "all" comes last: their sum, and what xz takes for all of them in one file. Empty texts add nothing to it.

    Raises ValueError if there is no text, a file is not UTF-8, or the model has no tokenizer with a start token.
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
    bits = dict(zip(names, document_bits(model, [texts[name] for name in names], tokenizer, window, stride, progress=progress).tolist()))
    scores = []
    for name, text in texts.items():
        size = len(text.encode())
        count = len(tokenizer.encode(text)) if text else 0  # the start token stands for the end, which is scored
        scores.append(Score(name, size, count, bits[name] / size if size else None, xz_bits([text]) / size if size else None))
    if len(scores) > 1:
        size, xz = sum(score.bytes for score in scores), xz_bits(list(texts.values()))
        scores.append(Score("all", size, sum(score.tokens for score in scores), sum(bits.values()) / size, xz / size))
    return scores


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise ValueError(f"there is no file or folder {str(path)!r}")
    return text_files(path) if path.is_dir() else [path]


def _text(file: Path) -> str:
    try:
        return decode(file.read_bytes())
    except UnicodeDecodeError as error:
        raise ValueError(f"{str(file)!r} is not UTF-8 text: {error}") from error


def xz_bits(texts: Sequence[str], known: Sequence[str] = ()) -> int:
    """The bits that `xz -9` takes for texts in one file, after other texts that it has already compressed.

    With `known`, the difference between the files with and without the texts: what a compressor gains from having
    seen what a model was trained on. The dictionary of level 9 is 64 MiB.
    """
    before = "".join(known).encode()
    return 8 * (_xz(before + "".join(texts).encode()) - (_xz(before) if known else 0))


def xz_bits_per_document(texts: Sequence[str]) -> list[int]:
    """The bits that `xz -9` takes for each text in a file of its own."""
    return [xz_bits([text]) for text in texts]


def xz_bits_in_windows(texts: Sequence[str], tokenizer: Tokenizer, window: int = 512, stride: int = 256) -> np.ndarray:
    """What `xz -9` takes for each text if it sees no more than `document_bits` shows a model: (number of texts,) bits.

    Of each window: by how much its new tokens lengthen a file of those that are known by then. Arguments as `document_bits`.
    """
    documents = [ids + [tokenizer.bos_id] for ids in tokenizer.encode_batch(list(texts))]
    bits = np.zeros(len(documents))
    for document, ids, known in _pieces(documents, window, stride):
        seen, new = tokenizer.decode(ids[: known + 1]), tokenizer.decode(ids[known + 1 :])
        bits[document] += xz_bits([new], [seen]) if seen else xz_bits([new])
    return bits


def _xz(content: bytes) -> int:
    """Bytes of the file that `xz -9` writes. A dictionary larger than the content changes nothing but the time to clear it."""
    size = min(1 << 26, max(1 << 12, 1 << len(content).bit_length()))
    return len(lzma.compress(content, filters=[{"id": lzma.FILTER_LZMA2, "preset": 9, "dict_size": size}]))
