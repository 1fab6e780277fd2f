"""What the model would say if it ended here: the logit lens, at every site (nostalgebraist 2020).

A site is a trace point of the stream's width. On the stream itself the lens skips the layers that are left. What a mixer
adds is read as if it were the stream. What a shared block makes (`link_out`) is never on the stream: its reading is what
the mixer is told, said in words, and no part of the logits (for that see `attribution.py`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from zamba_lab.config import ZambaConfig
from zamba_lab.lens.passes import run, token_losses
from zamba_lab.model import Zamba


class Translator(Protocol):
    def __call__(self, site: str, x: Tensor) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class LensReading:
    """What the lens reads at each site, in order of depth; i below is over `sites`."""

    sites: tuple[str, ...]
    tokens: Tensor  # (i, b, l, top) the likeliest next tokens
    probs: Tensor  # (i, b, l, top) their probabilities
    divergence: Tensor  # (i, b, l) KL(model || lens) in nats
    loss: Tensor  # (i, b, l - 1) of the next token, in nats


def lens_sites(config: ZambaConfig, added: bool = True) -> tuple[str, ...]:
    """The sites of a model: the stream at the start and after each layer, which is the stream before the next, and, if
    `added`, what was made in between."""
    made = ("attention.attn_out", "mlp_out") if config.mixer == "attention" else ("mamba.out",)
    found = ["embed"]
    for i in range(config.n_layers):
        if added:
            found += [f"layers.{i}.shared.link_out"] * (i in config.hybrid_layers)
            found += [f"layers.{i}.{point}" for point in made]
        found.append(f"layers.{i}.resid_out")
    return tuple(found)


def some(sites: Iterable[str]) -> tuple[str, ...]:
    """The sites as a tuple. Raises ValueError if there is none."""
    sites = tuple(sites)
    if not sites:
        raise ValueError("sites must name one trace point or more: got none")
    return sites


def unembed(model: Zamba, x: Tensor) -> Tensor:
    """The logits, (..., v), of a stream x, (..., d), at the end of the model."""
    x = model.final_norm(x)
    return model.embedding.logits(x) if model.head is None else model.head(x)


@torch.no_grad()
def logit_lens(
    model: Zamba, ids: Tensor, sites: Iterable[str] | None = None, top: int = 5, translate: Translator | None = None
) -> LensReading:
    """Read the model's mind at each site. The logits of one site are held at a time.

    Args:
        ids: (b, l), l >= 2.
        sites: trace points of width d_model; None: `lens_sites(model.config)`.
        top: how many of the likeliest tokens, 1..vocab_size.
        translate: (site, value) -> value, such as a `TunedLens`; None: values as they are.

    Raises ValueError if `top` is out of range, or a site has another width or is none, or no site is named.
    """
    if not 1 <= top <= model.config.vocab_size:
        raise ValueError(f"top must be in 1..{model.config.vocab_size} (vocab_size): got {top}")
    sites = some(lens_sites(model.config) if sites is None else sites)
    trace = run(model, ids, keep=["logits", *sites])
    wide = torch.promote_types(trace["logits"].dtype, torch.float32)
    final = trace["logits"].to(wide).log_softmax(-1)
    found: list[tuple[Tensor, ...]] = []
    for site in sites:
        x = trace[site]
        if x.ndim != 3 or x.shape[-1] != model.config.d_model:
            raise ValueError(f"a site must have the stream's width: {site} has shape {tuple(x.shape)}, d_model is {model.config.d_model}")
        logits = unembed(model, x if translate is None else translate(site, x)).to(wide)
        log_probs = logits.log_softmax(-1)
        best = log_probs.topk(top)
        found.append((best.indices, best.values.exp(), divergence(final, log_probs), token_losses(logits, ids)))
    return LensReading(sites, *(torch.stack(part) for part in zip(*found)))


def divergence(final: Tensor, other: Tensor) -> Tensor:
    """KL(final || other) over the last axis, from log-probabilities."""
    return (final.exp() * (final - other)).sum(-1)
