"""What each attention head looks for: the token before, an earlier copy of this one, or what followed that copy (induction).

Scores are mean attention weights on a random string that is read twice (Olsson et al. 2022, "In-context Learning and Induction
Heads"): random, so that nothing but the repetition can be known. A score says where a head looks, not that its reading is used: for
that take the head away (`replace.mean`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from zamba_lab.lens.attention import habits
from zamba_lab.lens.parts import attention_depths, attention_path
from zamba_lab.lens.passes import run, token_positions
from zamba_lab.lens.terms import widened
from zamba_lab.model import Zamba


@dataclass(frozen=True)
class HeadScores:
    """Mean weights in [0, 1], (a, h) each: a over attentions down the depth (invocations, or a transformer's layers)."""

    depths: tuple[int, ...]
    previous: Tensor  # of each token on the one before it
    duplicate: Tensor  # of each token of the second copy on itself in the first
    induction: Tensor  # of each token of the second copy on what followed it in the first
    even: dict[str, float]  # the same three of a head that reads all tokens alike


def repeated_tokens(model: Zamba, length: int = 64, count: int = 16, seed: int = 0) -> Tensor:
    """(count, 1 + 2 length) ids: the start token, then `length` random tokens twice; without it where the model has none.

    Within a row all differ, if the vocabulary is large enough; special tokens are not among them.
    """
    c, tokenizer = model.config, model.tokenizer
    start = c.bos_token_id if tokenizer is None else tokenizer.bos_id
    special = {start} if tokenizer is None else {start, tokenizer.eos_id, tokenizer.pad_id}
    pieces = c.vocab_size if tokenizer is None else min(c.vocab_size, tokenizer.vocab_size)
    kinds = torch.tensor([i for i in range(pieces) if i not in special])
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count):
        drawn = torch.cat([torch.randperm(len(kinds), generator=generator) for _ in range(-(-length // len(kinds)))])[:length]
        rows.append(torch.cat([torch.tensor([] if start is None else [start], dtype=torch.long), kinds[drawn], kinds[drawn]]))
    return torch.stack(rows).to(model.embedding.weight.device)


@torch.no_grad()
def head_scores(model: Zamba, ids: Tensor) -> HeadScores:
    """The three scores of every head, means over rows and positions.

    Args:
        ids: (b, 2n) or (b, 1 + 2n), as `repeated_tokens` makes them: a string twice, perhaps after a start token; n >= 2.

    Raises ValueError if the model has no attention, or the second half of ids is not the first again.
    """
    c, n = model.config, ids.shape[-1] // 2
    depths = attention_depths(c)
    if not depths:
        raise ValueError(f"the model has no attention: mixer {c.mixer!r}, n_shared_blocks {c.n_shared_blocks}")
    if n < 2 or not torch.equal(ids[:, -2 * n : -n], ids[:, -n:]):
        raise ValueError(f"ids must be a string of 2 tokens or more, twice: got shape {tuple(ids.shape)}")
    names = [f"{attention_path(c, i)}.attn_probs" for i in range(len(depths))]
    trace = run(model, ids, keep=names)
    probs = torch.stack([widened(trace[name]).mean(0) for name in names])  # (a, h, l, s)
    scores = {name: diagonal(probs, *which) for name, which in _diagonals(ids.shape[-1]).items()}
    even = torch.ones(probs.shape[-2:]).tril()
    even = even / even.sum(-1, keepdim=True)
    return HeadScores(depths, **scores, even={name: float(diagonal(even, *which)) for name, which in _diagonals(ids.shape[-1]).items()})


def _diagonals(length: int) -> dict[str, tuple[int, int]]:
    """Of each score: how far back it looks, and from which position on."""
    n, start = length // 2, length % 2
    return {"previous": (1, start + 1), "duplicate": (n, start + n), "induction": (n - 1, start + n)}


def diagonal(probs: Tensor, back: int, start: int) -> Tensor:
    """Of (..., l, s) weights the mean over positions from `start` on of the one `back` tokens before."""
    return probs.diagonal(-back, -2, -1)[..., start - back :].mean(-1)


@torch.no_grad()
def head_spread(model: Zamba, ids: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """How evenly each head reads a text: its entropy over that of an even head, and over how many tokens it spreads.

    Args:
        ids: (b, l), l >= 2. mask: (b, l), see `passes`.

    Returns: (a, h) share in 0..1 and (a, h) number of tokens, the exponential of the mean entropy; both over the later half of
    each row's tokens. Raises ValueError if the model has no attention.
    """
    c = model.config
    if not attention_depths(c):
        raise ValueError(f"the model has no attention: mixer {c.mixer!r}, n_shared_blocks {c.n_shared_blocks}")
    names = [f"{attention_path(c, i)}.attn_probs" for i in range(len(attention_depths(c)))]
    trace = run(model, ids, keep=names, mask=mask)
    real = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    position = token_positions(real)
    late = real & (2 * position >= real.sum(1, keepdim=True)) & (position > 0)
    entropy = torch.stack([habits(trace[name], mask)[0].transpose(0, 1)[:, late] for name in names])  # (a, h, late tokens)
    return (entropy / (position[late] + 1).log()).mean(-1), entropy.mean(-1).exp()
