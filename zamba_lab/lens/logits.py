"""What the model would predict if it ended here: the logit lens, plain and tuned, at every site.

A site is a trace point of the stream's width. On the stream itself the lens (nostalgebraist 2020) skips the layers that are
left. What a mixer adds is read as if it were the stream. A shared block's output (`link_out`) is never on the stream: its
reading tells what the mixer is given, and is no part of the logits (for that see `attribution.py`).

The tuned lens (Belrose et al. 2023) has an affine map for each site:

    lens(x) = unembed( x + A x + b )            A, b of that site; 0 at the start, which is the logit lens

A and b are fitted to the model's own predictions, KL(model || lens). On another, held-out text each site then keeps only so
much of its translation as helps there, 0 to all of it: on that text no site is worse than the logit lens.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from zamba_lab.config import ZambaConfig
from zamba_lab.lens.passes import run, token_losses
from zamba_lab.lens.terms import widened
from zamba_lab.model import Zamba

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


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
    """The sites of a model: the stream at the start and after each layer, and, if `added`, what blocks and mixers add between."""
    outputs = ("attention.attn_out", "mlp_out") if config.mixer == "attention" else ("mamba.out",)
    sites = ["embed"]
    for i in range(config.n_layers):
        if added:
            sites += [f"layers.{i}.shared.link_out"] * (i in config.hybrid_layers)
            sites += [f"layers.{i}.{point}" for point in outputs]
        sites.append(f"layers.{i}.resid_out")
    return tuple(sites)


def require_sites(sites: Iterable[str]) -> tuple[str, ...]:
    """The sites as a tuple. Raises ValueError if there is none."""
    sites = tuple(sites)
    if not sites:
        raise ValueError("sites must name one trace point or more: got none")
    return sites


def unembed(model: Zamba, x: Tensor) -> Tensor:
    """The logits, (..., v), of a stream x, (..., d), at the end of the model."""
    return model.logits(x.to(model.final_norm.weight.dtype))


@torch.no_grad()
def logit_lens(
    model: Zamba,
    ids: Tensor,
    sites: Iterable[str] | None = None,
    top: int = 5,
    translate: Translator | None = None,
    mask: Tensor | None = None,
) -> LensReading:
    """Read the next token's distribution off each site. The logits of one site are held at a time.

    Args:
        ids: (b, l), l >= 2. mask: (b, l), see `passes`.
        sites: trace points of width d_model; None: `lens_sites(model.config)`.
        top: how many of the likeliest tokens, 1..vocab_size.
        translate: (site, value) -> value, such as a `TunedLens`; None: values as they are.

    Raises ValueError if `top` is out of range, or a site has another width or is none, or no site is named.
    """
    if not 1 <= top <= model.config.vocab_size:
        raise ValueError(f"top must be in 1..{model.config.vocab_size} (vocab_size): got {top}")
    sites = require_sites(lens_sites(model.config) if sites is None else sites)
    trace = run(model, ids, keep=["logits", *sites], mask=mask)
    final = widened(trace["logits"]).log_softmax(-1)
    readings: list[tuple[Tensor, ...]] = []
    for site in sites:
        x = trace[site]
        if x.ndim != 3 or x.shape[-1] != model.config.d_model:
            raise ValueError(f"a site must have the stream's width: {site} has shape {tuple(x.shape)}, d_model is {model.config.d_model}")
        logits = widened(unembed(model, x if translate is None else translate(site, x)))
        log_probs = logits.log_softmax(-1)
        best = log_probs.topk(top)
        readings.append((best.indices, best.values.exp(), divergence(final, log_probs), token_losses(logits, ids, mask)))
    return LensReading(sites, *(torch.stack(part) for part in zip(*readings)))


def divergence(final: Tensor, other: Tensor) -> Tensor:
    """KL(final || other) over the last axis, from log-probabilities."""
    return (final.exp() * (final - other)).sum(-1)


@dataclass(frozen=True, eq=False)
class TunedLens:
    """Fitted translators: `logit_lens(model, ids, translate=tuned)`. Sites that it does not know are left as they are."""

    sites: tuple[str, ...]
    weight: Tensor  # (site, d, d) A
    bias: Tensor  # (site, d) b
    share: Tensor  # (site,) of SHARES: how much of the translation is kept; 0: the logit lens
    before: Tensor  # (site,) held-out KL(model || logit lens), nats a token
    after: Tensor  # (site,) held-out KL(model || this lens)

    def __call__(self, site: str, x: Tensor) -> Tensor:
        if site not in self.sites:
            return x
        i = self.sites.index(site)
        return translated(x, self.weight[i], self.bias[i], self.share[i])


def translated(x: Tensor, weight: Tensor, bias: Tensor, share: Tensor | float) -> Tensor:
    """x + share (A x + b). x: (..., d)."""
    return x + share * (x @ weight.to(x.dtype).mT + bias.to(x.dtype))


def fit_tuned_lens(
    model: Zamba,
    ids: Tensor,
    held_out: Tensor,
    sites: Iterable[str] | None = None,
    steps: int = 200,
    rate: float = 1e-3,
    tokens: int = 256,
    seed: int = 0,
    mask: Tensor | None = None,
    held_out_mask: Tensor | None = None,
) -> TunedLens:
    """Fit a translator for each site: Adam, the rate falling in a line to 0.

    Args:
        ids: (b, l) to fit on; mask: as in `passes`. held_out, held_out_mask: other text, to decide how much of it to keep.
        sites: trace points of width d_model; None: the stream after the embedding and after every layer but the last.
        steps: each on `tokens` tokens of ids, drawn anew.

    It lasts half a minute for zamba2-nano. Raises ValueError if there is no step, no token in one, or no site.
    """
    if steps < 1 or tokens < 1:
        raise ValueError(f"steps and tokens must be 1 or more: got {steps} and {tokens}")
    sites = require_sites(lens_sites(model.config, added=False)[:-1] if sites is None else sites)
    x, final = _gathered(model, ids, sites, mask)
    scale = x.square().mean((1, 2), keepdim=True).sqrt()  # so that one rate fits all sites
    weight = x.new_zeros(len(sites), x.shape[-1], x.shape[-1]).requires_grad_()
    bias = x.new_zeros(len(sites), 1, x.shape[-1]).requires_grad_()
    adam = torch.optim.Adam([weight, bias], lr=rate)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        drawn = torch.randint(x.shape[1], (tokens,), generator=generator).to(x.device)
        adam.param_groups[0]["lr"], batch = rate * (1 - step / steps), x[:, drawn]
        with torch.enable_grad():
            logits = unembed(model, batch + batch @ weight.mT + scale * bias)
            loss = divergence(final[drawn], logits.log_softmax(-1)).mean(1).sum()
        weight.grad, bias.grad = torch.autograd.grad(loss, [weight, bias])
        adam.step()
    return _kept(model, held_out, held_out_mask, sites, weight.detach(), (scale * bias).detach()[:, 0])


@torch.no_grad()
def _gathered(model: Zamba, ids: Tensor, sites: tuple[str, ...], mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """The values at the sites, (site, n, d), and the model's log-probabilities, (n, v), of the n tokens of all rows."""
    trace = run(model, ids, keep=["logits", *sites], mask=mask)
    chosen = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()
    x = torch.stack([widened(trace[site])[chosen] for site in sites])
    return x, widened(trace["logits"])[chosen].log_softmax(-1)


@torch.no_grad()
def _kept(model: Zamba, held_out: Tensor, mask: Tensor | None, sites: tuple[str, ...], weight: Tensor, bias: Tensor) -> TunedLens:
    """The lens with each site's share chosen on held-out text."""
    x, final = _gathered(model, held_out, sites, mask)

    def error(i: int, share: float) -> Tensor:
        return divergence(final, unembed(model, translated(x[i], weight[i], bias[i], share)).log_softmax(-1)).mean()

    errors = torch.stack([torch.stack([error(i, share) for share in SHARES]) for i in range(len(sites))])  # (site, share)
    best = errors.argmin(1)
    shares = torch.tensor(SHARES, dtype=x.dtype, device=x.device)[best]
    return TunedLens(sites, weight, bias, shares, errors[:, 0], errors.gather(1, best[:, None])[:, 0])
