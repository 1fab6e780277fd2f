"""The Mamba-1 selective scan, in forms that agree: recurrence, quadratic, chunked, one step, native.

Gu & Dao 2023, "Mamba". Per channel, with a scalar x_t, its own step size dt_t > 0, and n decay rates A < 0:

    state_t = exp(dt_t A) * state_{t-1} + dt_t x_t B_t              in R^n, * elementwise
    y_t     = <state_t, C_t>

Zamba1 splits its channels into heads, each with its own B and C. `selective_scan` picks the fastest form that serves.
The argument order is Mamba-2's, (x, dt, A, B, C, state), and so are the rules of precision and padding (`ops/ssd.py`).
Every channel and state component decays at its own rate, so nothing here is a matrix multiplication: the chunked form
only shortens the chain of dependent steps.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor

from zamba_lab import native
from zamba_lab.native import gpu
from zamba_lab.ops.ssd import edit_latest, skip, start_state


def selective_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None, chunk_size: int = 256, D: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The whole sequence by the fastest form that serves: the native kernel, the CUDA one, or `scan_chunked`, whose
    arguments these are.

    D: (h, p) the skip, y + D x, or None. chunk_size means nothing to the kernels. Returns: y (b, l, h, p), the last state
    (b, h, p, n).
    """
    if native.serves(x, B, C):
        wide = torch.promote_types(x.dtype, torch.float32)
        dt, A, D, state = (None if t is None else t.to(wide) for t in (dt, A, D, state))
        keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, dt, A, B, C, D, state))
        return native.selective_scan(x, dt, A, B, C, D, state, keep)[:2]
    if state is None and gpu.serves("selective_scan", x, B, C):
        return gpu.selective_scan(x, dt, A, B, C, D)
    if x.shape[1] == 1:
        y, state = scan_step(x[:, 0], dt[:, 0], A, B[:, 0], C[:, 0], state)
        y = y[:, None]
    else:
        y, state = scan_chunked(x, dt, A, B, C, state, chunk_size)
    return y if D is None else skip(y, x, D), state


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
    elapsed = (time[:, :, None] - time[:, None]).clamp(min=0)  # (b, l, s, h, p)
    decay = torch.exp(elapsed[..., None] * A.to(wide))  # (b, l, s, h, p, n)
    M = einsum(C.to(wide), decay, B.to(wide), "b l h n, b l s h p n, b s h n -> b l s h p")
    M = M * rearrange(torch.ones(l, l, dtype=wide, device=x.device).tril(), "l s -> l s 1 1")
    value = dt.to(wide) * x.to(wide)
    since_start = torch.exp(time[..., None] * A.to(wide))  # (b, l, h, p, n)
    y = einsum(M, value, "b l s h p, b s h p -> b l h p")
    y = y + einsum(since_start * state[:, None], C.to(wide), "b l h p n, b l h n -> b l h p")
    written = einsum(decay[:, -1], value, B.to(wide), "b s h p n, b s h p, b s h n -> b h p n")
    return y.to(x.dtype), since_start[:, -1] * state + written


def scan_chunked(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None, chunk_size: int = 256
) -> tuple[Tensor, Tensor]:
    """The fast form: a chunk of q tokens takes about 2 sqrt(q) dependent steps instead of q.

    A chunk is cut into sqrt(q) runs that start from a zero state and advance together, token by token; then their
    ends are chained, and each run adds what its true start would have contributed. Only decays <= 1 are ever
    multiplied, so nothing overflows. Workspace: a few (b, q, h, p, n) tensors.

    Any l; arguments as `scan_recurrence`; chunk_size >= 1. Returns: y (b, l, h, p), the last state (b, h, p, n).
    """
    state = start_state(x, B, state)
    if not x.numel():  # F.pad of torch 2.9 refuses an empty axis
        return torch.zeros_like(x), state
    ys = []
    for chunk in zip(*(part.split(chunk_size, dim=1) for part in (x, dt, B, C))):
        xs, dts, Bs, Cs = chunk
        y, state = _chunk(xs, dts, A, Bs, Cs, state)
        ys.append(y)
    return torch.cat(ys, dim=1), state


def _chunk(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One chunk in runs of equal length; the last run is filled up with dt = 0, which leaves the state as it was."""
    l = x.shape[1]
    length = max(1, round(l**0.5))
    padding = -l % length
    if padding:
        x, dt, B, C = (F.pad(part, (0, 0) * (part.ndim - 2) + (0, padding)) for part in (x, dt, B, C))
    decay, write = _discretise(x, dt, A, B, state.dtype)
    decay, write = (rearrange(part, "b (c q) h p n -> q b c h p n", q=length) for part in (decay, write))

    run, since_start, runs, decays = write[0], decay[0], [write[0]], [decay[0]]  # (b, c, h, p, n)
    for t in range(1, length):
        run, since_start = decay[t] * run + write[t], decay[t] * since_start
        runs.append(run)
        decays.append(since_start)
    starts = []
    for c in range(run.shape[1]):
        starts.append(state)
        state = since_start[:, c] * state + run[:, c]
    states = torch.stack(runs, dim=2) + torch.stack(decays, dim=2) * torch.stack(starts, dim=1)[:, :, None]
    y = _read(rearrange(states, "b c q h p n -> b (c q) h p n"), C)
    return y[:, :l].to(x.dtype), state


def _discretise(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, wide: torch.dtype) -> tuple[Tensor, Tensor]:
    """The decay exp(dt A) and what is written, dt x B, both (..., h, p, n)."""
    dt = dt.to(wide)
    return torch.exp(dt[..., None] * A.to(wide)), (dt * x.to(wide))[..., None] * B.to(wide)[..., None, :]


def _read(state: Tensor, C: Tensor) -> Tensor:
    """y = <state, C>. state: (..., h, p, n); C: (..., h, n)."""
    return einsum(state, C.to(state.dtype), "... p n, ... n -> ... p")
