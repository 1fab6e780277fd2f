"""How long a head remembers: its step sizes, the half-life of the formula, and the memory as it is measured.

A state that is written to no more shrinks by exp(dt A) a token, so it halves in ln 2 / (dt |A|) tokens. dt depends on
the token: a small step lets the past stand, a large one overwrites it (Gu & Dao 2023 on selection). Three measures:

    analytic    ln 2 / (dt |A|) at one token's step size (`decay`)
    measured    the state as it is after a token, carried on by the model's own steps with nothing more written: the number
                of tokens until its norm has halved. The steps are those of the tokens that follow, not one repeated, and a
                Mamba-1 head's many rates act together.
    reach       the number of latest tokens on which half of the weight |M_ts| lies with which the head reads its inputs:
                what B and C choose to write and read counts, too

In a head with one rate and one constant step all three agree, reach if B and C are constant and the text is long. Where
they differ, the half-life that the formula quotes is not the memory the head has.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from einops import rearrange, reduce
from torch import Tensor

from zamba_lab.lens.passes import run, tokens_first
from zamba_lab.lens.terms import STEP, Terms, decay_rates, names_of_inputs, require_ssm, ssm_rows, terms
from zamba_lab.model import Zamba
from zamba_lab.trace import Trace


@dataclass(frozen=True)
class Decay:
    """Both (n_layers, b, l, h). In Mamba-2 a head has one step size and one rate, and these are they.

    In Mamba-1 each channel has its own step and each state component its own rate; then both are geometric means over
    the head's channels (and components).
    """

    dt: Tensor
    half_life: Tensor  # in tokens


@torch.no_grad()
def decay(model: Zamba, ids: Tensor, mask: Tensor | None = None) -> Decay:
    """Step sizes and half-lives of every head of every layer at every token of (b, l) ids; mask: (b, l), see `passes`."""
    require_ssm(model)
    trace = run(model, ids, keep=["layers.*.mamba.dt"], mask=mask)
    dts = [trace[f"layers.{i}.mamba.dt"] for i in range(model.config.n_layers)]
    return Decay(
        dt=torch.stack([mean_log(dt).exp() for dt in dts]),
        half_life=torch.stack([half_lives(dt, decay_rates(model, i)) for i, dt in enumerate(dts)]),
    )


def half_lives(dt: Tensor, A: Tensor) -> Tensor:
    """ln 2 / (dt |A|) of each head at each token, (b, l, h): a geometric mean if a head has several steps or rates.

    Args:
        dt: (b, l, h), or (b, l, h, p) in Mamba-1.
        A: (h,), or (h, p, n) in Mamba-1; < 0.
    """
    rate = reduce((-A).log(), "h ... -> h", "mean")
    return torch.exp(math.log(math.log(2)) - mean_log(dt) - rate)


def mean_log(dt: Tensor) -> Tensor:
    """log dt, the mean over a head's channels where each has its own. (b, l, h, ...) -> (b, l, h)"""
    return reduce(dt.log(), "b l h ... -> b l h", "mean")


@dataclass(frozen=True)
class Horizons:
    """All (n_layers, m, b, h), m over `positions`, in tokens."""

    positions: tuple[int, ...]
    window: int
    analytic: Tensor  # at the step size of the token after the position, the first that shrinks the state
    measured: Tensor
    halved: Tensor  # bool: within the window. Where False, `measured` goes on at the window's mean rate
    reach: Tensor  # > 0, at most position + 1

    @property
    def discrepancy(self) -> Tensor:
        """log2(measured / analytic): 0 where the formula is right, 1 where the state lasts twice as long as it says."""
        return torch.log2(self.measured / self.analytic)


@torch.no_grad()
def horizons(
    model: Zamba, ids: Tensor, positions: Iterable[int] | None = None, window: int | None = None, mask: Tensor | None = None
) -> Horizons:
    """The memory of every head of every layer after a few tokens of a text.

    Args:
        ids: (b, l), l >= 2. mask: (b, l), see `passes`; positions count each row's tokens then, and l is the shortest row's.
        positions: tokens after which to measure, 0 <= position < l - window; None: up to four, evenly spaced, the last
            possible one among them.
        window: tokens to wait for a state to halve, 1 <= window < l; None: half of the text.

    Raises ValueError if the model has no SSM or the positions do not fit.
    """
    require_ssm(model)
    l = ids.shape[1] if mask is None else int(mask.sum(1).min())
    ids = ids if mask is None else ids.gather(1, tokens_first(mask))  # no token looks ahead to the padding behind
    window = l // 2 if window is None else window
    if not 1 <= window < l:
        raise ValueError(f"window must be in 1..{l - 1} (the text has {l} tokens): got {window}")
    if positions is None:
        positions = {max(0, (l - window) * (i + 1) // 4 - 1) for i in range(4)}
    positions = tuple(sorted(positions))
    if not positions or positions[0] < 0 or positions[-1] >= l - window:
        raise ValueError(f"positions must be some of 0..{l - window - 1} (length {l} - window {window}): got {positions}")
    trace = run(model, ids, keep=names_of_inputs("*"))
    layers = [layer_horizons(model, trace, depth, positions, window) for depth in range(model.config.n_layers)]
    return Horizons(positions, window, *(torch.stack(part) for part in zip(*layers)))


def layer_horizons(model: Zamba, trace: Trace, depth: int, positions: tuple[int, ...], window: int) -> tuple[Tensor, ...]:
    """(analytic, measured, halved, reach) of one layer, each (m, b, h)."""
    next_tokens = [position + 1 for position in positions]
    analytic = half_lives(trace[f"layers.{depth}.mamba.dt"], decay_rates(model, depth))[:, next_tokens]
    measured, halved = halving(decaying_norms(model, trace, depth, positions, window))
    ssm = terms(model, trace, depth)
    return rearrange(analytic, "b m h -> m b h"), measured, halved, torch.stack([reach(ssm, t) for t in positions])


def decaying_norms(model: Zamba, trace: Trace, depth: int, positions: tuple[int, ...], window: int) -> Tensor:
    """The norms of a layer's states after each position, and 1..window tokens later with nothing written in between.

    Returns: (window + 1, m, b, h). Only the m states themselves are held.
    """
    inputs = [trace[name] for name in names_of_inputs([depth])]
    ssm, A, step = terms(model, trace, depth), decay_rates(model, depth), STEP[model.config.mixer]
    state = torch.cat([ssm.until(t).scan(ssm.until(t).x)[1] for t in positions])  # (m b, h, p, n)
    norms = [torch.linalg.matrix_norm(state)]
    x, dt, B, C = (torch.cat([part[:, t + 1 : t + 1 + window] for t in positions]) for part in inputs)
    for j in range(window):
        _, state = step(torch.zeros_like(x[:, j]), dt[:, j], A, B[:, j], C[:, j], state)
        norms.append(torch.linalg.matrix_norm(state))
    return rearrange(torch.stack(norms), "w (m b) h -> w m b h", m=len(positions))


def halving(norms: Tensor) -> tuple[Tensor, Tensor]:
    """After how many steps a falling series reaches half of its first value, logarithms interpolated between steps.

    Args:
        norms: (w + 1, ...), the first axis is time.

    Returns: (...) the number of steps, at the mean rate of the series if it never does, and bool, whether it does.
    """
    logs = norms.clamp(min=torch.finfo(norms.dtype).tiny).log()
    fallen = logs[0] - logs  # 0 at first, then growing
    below = fallen >= math.log(2)
    halved = below.any(0)
    last = len(norms) - 1
    first = torch.where(halved, below.to(torch.uint8).argmax(0), last)[None]
    after = fallen.gather(0, first)[0]
    before = torch.where(halved, fallen.gather(0, first - 1)[0], 0)
    start = torch.where(halved, first[0] - 1, 0)
    return start + (math.log(2) - before) * (first[0] - start) / (after - before), halved


def reach(ssm: Terms, t: int) -> Tensor:
    """On how many tokens, token t and those just before it, half of |M_ts| lies; the mean over channels. (b, h)"""
    weight = ssm_rows(ssm, slice(t, t + 1))[..., 0, : t + 1].abs().mean(2).flip(-1)  # (b, h, s), the latest first
    share = weight.cumsum(-1) / weight.sum(-1, keepdim=True)
    first = (share >= 0.5).to(torch.uint8).argmax(-1, keepdim=True)
    upto = share.gather(-1, first)[..., 0]
    own = (weight / weight.sum(-1, keepdim=True)).gather(-1, first)[..., 0]
    return first[..., 0] + (0.5 - (upto - own)) / own
