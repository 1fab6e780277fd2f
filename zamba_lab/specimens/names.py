"""Identifiers of Python in windows of tokens: where each stands for the first time, and where it comes again.

A name that comes again can be looked up in the window; one that stands there for the first time cannot. Keywords, builtins, `self`
and `cls` are known from training and do not count, nor does what stands in strings and comments.
"""

import builtins
import io
import keyword
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor

from zamba_lab.tokenizer import Tokenizer

KNOWN = {*keyword.kwlist, *keyword.softkwlist, *dir(builtins), "self", "cls"}


@dataclass(frozen=True)
class Names:
    """Which predicted tokens belong to an identifier, (b, l - 1) bool as `next_token_loss` counts them, and how many there are."""

    first: Tensor
    repeated: Tensor
    n_first: Tensor  # (b,) identifiers
    n_repeated: Tensor

    def cost(self, losses: Tensor) -> dict[str, Tensor]:
        """The loss of an identifier, the sum over its tokens, mean of each row, (b,) nats; NaN in a row that has none."""
        return {
            "first": (losses * self.first).sum(1) / self.n_first.where(self.n_first > 0, torch.nan),
            "repeated": (losses * self.repeated).sum(1) / self.n_repeated.where(self.n_repeated > 0, torch.nan),
        }


def names(ids: Tensor, tokenizer: Tokenizer) -> Names:
    """The identifiers of each row of (b, l) ids, which begin with the start token. One that the window's end may cut is left out."""
    masks = torch.zeros(2, len(ids), ids.shape[1] - 1, dtype=torch.bool)
    counts = torch.zeros(2, len(ids))
    for b, row in enumerate(ids[:, 1:].tolist()):
        text, ends = tokenizer.decode(row), token_ends(row, tokenizer)
        starts, seen = [0, *ends[:-1]], set()
        for start, end, name in identifiers(text):
            if end >= len(text):
                continue
            again = int(name in seen)
            seen.add(name)
            counts[again, b] += 1
            for t, (left, right) in enumerate(zip(starts, ends)):
                masks[again, b, t] |= left < end and right > start
    return Names(masks[0], masks[1], counts[0], counts[1])


def token_ends(ids: list[int], tokenizer: Tokenizer) -> list[int]:
    """Where in the text of all ids each of them ends, in characters; a token that ends within a character, where that begins."""
    return [len(tokenizer.decode(ids[: k + 1]).rstrip("\N{REPLACEMENT CHARACTER}")) for k in range(len(ids))]


def identifiers(text: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, name) of each, in characters, up to where the text is no longer Python: it may be cut anywhere."""
    lines = [0, *accumulate(map(len, io.StringIO(text)))]  # not splitlines, which also splits at form feeds
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NAME and token.string not in KNOWN:
                yield lines[token.start[0] - 1] + token.start[1], lines[token.end[0] - 1] + token.end[1], token.string
    except (tokenize.TokenError, SyntaxError):
        return
