"""The tuned lens: each site speaks its own dialect, and an affine map translates it (Belrose et al. 2023).

    lens(x) = unembed( x + A x + b )            A, b of that site; 0 at the start, which is the logit lens

A and b are fitted to the model's own predictions, KL(model || lens). On another, held-out text each site then keeps only so
much of its translation as helps there, 0 to all of it: on that text no site is worse than the logit lens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from zamba_lab.lens.logits import divergence, lens_sites, some, unembed
from zamba_lab.lens.passes import run
from zamba_lab.model import Zamba

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


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
) -> TunedLens:
    """Fit a translator for each site: Adam, the rate falling in a line to 0.

    Args:
        ids: (b, l) to fit on. held_out: (b', l') of other text, to decide how much of it to keep.
        sites: trace points of width d_model; None: the stream after the embedding and after every layer but the last.
        steps: each on `tokens` tokens of ids, drawn anew.

    Takes about as long as `steps` times a product of those tokens with the embedding for each site: half a minute for the
    shipped model. Raises ValueError if there is no step, no token in one, or no site.
    """
    if steps < 1 or tokens < 1:
        raise ValueError(f"steps and tokens must be 1 or more: got {steps} and {tokens}")
    sites = some(lens_sites(model.config, added=False)[:-1] if sites is None else sites)
    x, final = _gathered(model, ids, sites)
    scale = x.square().mean((1, 2)).sqrt()[:, None, None]  # so that one rate fits all sites
    weight = x.new_zeros(len(sites), x.shape[-1], x.shape[-1]).requires_grad_()
    bias = x.new_zeros(len(sites), 1, x.shape[-1]).requires_grad_()
    adam = torch.optim.Adam([weight, bias], lr=rate)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        drawn = torch.randint(x.shape[1], (tokens,), generator=generator).to(x.device)
        adam.param_groups[0]["lr"] = rate * (1 - step / steps)
        with torch.enable_grad():
            batch = x[:, drawn]
            logits = unembed(model, batch + batch @ weight.mT + scale * bias)
            loss = divergence(final[drawn], logits.log_softmax(-1)).mean(1).sum()
            gradients = torch.autograd.grad(loss, [weight, bias])
        weight.grad, bias.grad = gradients
        adam.step()
    return _kept(model, held_out, sites, weight.detach(), (scale * bias).detach()[:, 0])


@torch.no_grad()
def _gathered(model: Zamba, ids: Tensor, sites: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """What is at the sites, (site, b l, d), and the model's log-probabilities, (b l, v)."""
    trace = run(model, ids, keep=["logits", *sites])
    wide = torch.promote_types(trace["logits"].dtype, torch.float32)
    x = torch.stack([trace[site].flatten(0, 1) for site in sites])
    return x.to(wide), trace["logits"].to(wide).log_softmax(-1).flatten(0, 1)


@torch.no_grad()
def _kept(model: Zamba, held_out: Tensor, sites: tuple[str, ...], weight: Tensor, bias: Tensor) -> TunedLens:
    """The lens with each site's share chosen on held-out text."""
    x, final = _gathered(model, held_out, sites)
    found = torch.stack(
        [
            torch.stack(
                [divergence(final, unembed(model, translated(x[i], weight[i], bias[i], share)).log_softmax(-1)).mean() for share in SHARES]
            )
            for i in range(len(sites))
        ]
    )  # (site, share)
    best = found.argmin(1)
    return TunedLens(
        sites, weight, bias, torch.tensor(SHARES, dtype=x.dtype, device=x.device)[best], found[:, 0], found.gather(1, best[:, None])[:, 0]
    )
