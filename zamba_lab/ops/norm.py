"""RMSNorm, and the gated, grouped form that ends a Mamba-2 mixer (Zhang & Sennrich 2019; Dao & Gu 2024)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from zamba_lab import native


def rms_norm(x: Tensor, weight: Tensor, eps: float, groups: int = 1) -> Tensor:
    """Divide by the root mean square over the last axis, then scale per channel.

        y = weight * x / sqrt(mean(x^2) + eps)          the mean over each of `groups` equal slices

    Statistics are float32 or wider; the result is cast to x's dtype *before* the weight, as in the released code.

    Args:
        x: (..., d). weight: (d,). eps: > 0. groups: divides d.

    Returns: (..., d), x's dtype.
    """
    if form := native.find("rms_norm", x, None, weight, groups=groups):
        return form(x, None, weight, eps, groups, True)
    wide = rearrange(x.to(torch.promote_types(x.dtype, torch.float32)), "... (g i) -> ... g i", g=groups)
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return rearrange(wide, "... g i -> ... (g i)").to(x.dtype) * weight


def gated_rms_norm(y: Tensor, z: Tensor, weight: Tensor, eps: float, groups: int) -> Tensor:
    """Gate with SiLU(z), then normalise within each group: the gate comes *before* the norm in Zamba2.

    Args:
        y: (b, l, e) mixer output. z: (b, l, e) gate. weight: (e,). groups: the mixer's n_groups. Normalising over
            all of e instead is right for one group only; readers that did so broke Zamba2-7B, which has two.

    Returns: (b, l, e), y's dtype.
    """
    weight = weight.to(y.dtype)
    if form := native.find("gated_rms_norm", y, z, weight, groups=groups):
        return form(y, z, weight, eps, groups, False)
    wide = torch.promote_types(y.dtype, torch.float32)
    return rms_norm(y.to(wide) * F.silu(z.to(wide)), weight, eps, groups).to(y.dtype)
