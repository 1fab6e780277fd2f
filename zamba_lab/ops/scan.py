"""The Mamba-1 selective scan in forms that agree: recurrence, one step, quadratic, chunked.

Gu & Dao 2023, "Mamba". Per channel, with a scalar x_t, its own step size dt_t > 0, and n decay rates A < 0:

    state_t = exp(dt_t A) * state_{t-1} + dt_t x_t B_t              in R^n, * elementwise
    y_t     = <state_t, C_t>

Zamba1 splits its channels into heads, each with its own B and C. The argument order is Mamba-2's, (x, dt, A, B, C, state), and so are
the rules of precision and padding (`ops/ssd.py`).
Every channel and state component decays at its own rate, so nothing here is a matrix multiplication: the chunked form
only shortens the chain of dependent steps.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor

from zamba_lab import native
from zamba_lab.ops.ssd import edit_latest, skip, start_state, without_infinities


def scan_recurrence(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None, edit: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Run the scan one token at a time: the definition the faster forms are tested against.

    Args:
        x: (b, l, h, p) inputs after convolution and SiLU.
        dt: (b, l, h, p) step sizes, >= 0 (softplus already applied).
        A: (h, p, n) decay rates, < 0.
        B, C: (b, l, h, n).
        state: (b, h, p, n) to start from; zeros if None.
        edit: as in `ssd_recurrence`.

    Returns:
        y: (b, l, h, p) without the D skip; states: (b, l, h, p, n), one after each token.
    """
    state = start_state(x, B, state)
    ys, states = [], []
    for t in range(x.shape[1]):
        y, state = scan_step(x[:, t], dt[:, t], A, B[:, t], C[:, t], state)
        if edit is not None:
            state = edit_latest(edit, states, state, length=x.shape[1])
            y = _read(state, C[:, t]).to(x.dtype)
        ys.append(y)
        states.append(state)
    return torch.stack(ys, dim=1), torch.stack(states, dim=1)


def scan_step(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One token: the form decoding uses. Arguments as `scan_recurrence` without the l axis.

    Returns: y (b, h, p), state (b, h, p, n).
    """
    state = start_state(x[:, None], B[:, None], state)
    decay, write = _discretise(x, dt, A, B, state.dtype)
    state = decay * state + write
    return _read(state, C).to(x.dtype), state


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


def scan_chunked(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None, chunk_size: int = 256
) -> tuple[Tensor, Tensor]:
    """The fast form: a chunk of q tokens takes about 2 sqrt(q) dependent steps instead of q.

    A chunk is cut into sqrt(q) segments of equal length that start from a zero state and advance together, token by token. With
    own_t for such a state, and D_t for the product of the decays from the segment's start to t:

        start   = D_last start + own_last          from each segment's start to the next: the between-segment recurrence
        state_t = own_t + D_t start                what each segment adds for its true start

    Only decays <= 1 are ever multiplied, so nothing overflows. Workspace: a few (b, q, h, p, n) tensors.

    Any l; arguments as `scan_recurrence`; chunk_size >= 1. Returns: y (b, l, h, p), the last state (b, h, p, n).
    """
    state = start_state(x, B, state)
    if not x.numel():  # F.pad of torch 2.9 refuses an empty axis
        return torch.zeros_like(x), state
    ys = []
    for xs, dts, Bs, Cs in zip(*(part.split(chunk_size, dim=1) for part in (x, dt, B, C)), strict=True):
        y, state = _chunk(xs, dts, A, Bs, Cs, state)
        ys.append(y)
    return torch.cat(ys, dim=1), state


def _chunk(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The equations of `scan_chunked`; the last segment is filled up with dt = 0, which leaves the state as it was."""
    l = x.shape[1]
    length = max(1, round(float(l) ** 0.5))
    padding = -l % length
    if padding:
        x, dt, B, C = (F.pad(part, (0, 0) * (part.ndim - 2) + (0, padding)) for part in (x, dt, B, C))
    decay, write = _discretise(x, dt, A, B, state.dtype)
    decay, write = (rearrange(part, "b (c q) h p n -> q b c h p n", q=length) for part in (decay, write))

    own, since_start = [write[0]], [decay[0]]  # (b, c, h, p, n) each, one a token of the segments
    for t in range(1, length):
        own.append(decay[t] * own[-1] + write[t])
        since_start.append(decay[t] * since_start[-1])
    starts = []
    for c in range(write.shape[2]):
        starts.append(state)
        state = since_start[-1][:, c] * state + own[-1][:, c]
    states = torch.stack(own, dim=2) + torch.stack(since_start, dim=2) * torch.stack(starts, dim=1)[:, :, None]
    y = _read(rearrange(states, "b c q h p n -> b (c q) h p n"), C)
    return y[:, :l].to(x.dtype), state


def _discretise(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, wide: torch.dtype) -> tuple[Tensor, Tensor]:
    """The decay exp(dt A) and what is written, dt x B, both (..., h, p, n)."""
    dt = dt.to(wide)
    return torch.exp(dt[..., None] * A.to(wide)), (dt * x.to(wide))[..., None] * B.to(wide)[..., None, :]


def _read(state: Tensor, C: Tensor) -> Tensor:
    """y = <state, C>. state: (..., h, p, n); C: (..., h, n)."""
    return einsum(state, C.to(state.dtype), "... p n, ... n -> ... p")


def selective_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None, chunk_size: int = 256, D: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The whole sequence: natively where a native form serves, else by `scan_chunked`, whose arguments these are; and the skip.

    D: (h, p) for y + D x, or None. chunk_size means nothing to native forms. Returns: y (b, l, h, p), the last state (b, h, p, n).
    """
    if form := native.find("selective_scan", x, dt, A, B, C, D, state):
        return form(x, dt, A, B, C, D, state)
    if x.shape[1] == 1:
        y, state = scan_step(x[:, 0], dt[:, 0], A, B[:, 0], C[:, 0], state)
        y = y[:, None]
    else:
        y, state = scan_chunked(x, dt, A, B, C, state, chunk_size)
    return y if D is None else skip(y, x, D), state
