"""How long a head remembers: its step sizes, and the half-life they give its state.

A state that is written to no more shrinks by exp(dt A) a token, so it halves in ln 2 / (dt |A|) tokens. dt depends on
the token: a small step lets the past stand, a large one overwrites it (Gu & Dao 2023 on selection).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import reduce
from torch import Tensor

from zamba_lab.lens.passes import run
from zamba_lab.lens.terms import decay_rates, require_ssm
from zamba_lab.model import Zamba


@dataclass(frozen=True)
class Decay:
    """Both (n_layers, b, l, h). In Mamba-2 a head has one step size and one rate, and these are they.

    In Mamba-1 each channel has its own step and each state component its own rate; then both are geometric means over
    the head's channels (and components).
    """

    dt: Tensor
    half_life: Tensor  # in tokens


@torch.no_grad()
def decay(model: Zamba, ids: Tensor) -> Decay:
    """Step sizes and half-lives of every head of every layer at every token of (b, l) ids."""
    require_ssm(model)
    trace = run(model, ids, keep=["layers.*.mamba.dt"])
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
