"""The selective scan once more, written as a matrix: what the forms of `ops/scan.py` are compared with beside its recurrence."""

import torch
from einops import einsum, rearrange
from torch import Tensor

from zamba_lab.ops.ssd import start_state, without_infinities


def scan_quadratic(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The same map as an explicit lower-triangular matrix per channel: what Mamba-1 "attends" to.

        y_t = sum_{s <= t} M_ts dt_s x_s          M_ts = sum_n C_tn exp(A_n (dt_{s+1} + ... + dt_t)) B_sn

    Costs O(l^2 n) a channel: for teaching, and as a witness. Arguments as `scan_recurrence`.
    Returns: y (b, l, h, p), the last state (b, h, p, n).
    """
    state = start_state(x, B, state)
    wide, l = state.dtype, x.shape[1]
    time = torch.cumsum(dt.to(wide), dim=1)  # (b, l, h, p)
    future = rearrange(torch.ones(l, l, dtype=torch.bool, device=x.device).triu(1), "l s -> l s 1 1")
    elapsed = (time[:, :, None] - time[:, None]).masked_fill(future, 0)  # (b, l, s, h, p)
    decay = torch.exp(elapsed[..., None] * A.to(wide))  # (b, l, s, h, p, n)
    u, B = dt.to(wide) * x.to(wide), B.to(wide)
    (finite_u, later_u), (finite_B, later_B) = (
        [rearrange(part, "b h l i -> b l h i") for part in without_infinities(rearrange(t, "b l h i -> b h l i"))] for t in (u, B)
    )
    M = einsum(C.to(wide), decay, finite_B, "b l h n, b l s h p n, b s h n -> b l s h p").masked_fill(future, 0)
    y = einsum(M, finite_u, "b l s h p, b s h p -> b l h p") + later_u + later_B.sum(-1, keepdim=True)
    since_start = torch.exp(time[..., None] * A.to(wide))  # (b, l, h, p, n)
    y = y + einsum(since_start * state[:, None], C.to(wide), "b l h p n, b l h n -> b l h p")
    own = einsum(decay[:, -1], u, B, "b s h p n, b s h p, b s h n -> b h p n")
    return y.to(x.dtype), since_start[:, -1] * state + own
