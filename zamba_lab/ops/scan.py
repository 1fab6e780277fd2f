"""The Mamba-1 selective scan in forms that agree: recurrence, one step, chunked.

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
from einops import rearrange
from torch import Tensor

from zamba_lab import native
from zamba_lab.ops.ssd import chunk_by_chunk, pure, read, start_state, token_by_token


def scan_recurrence(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None, edit: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Run the scan one token at a time: the definition the faster forms are tested against.

    Arguments and results as `ssd_recurrence`, with another step for each channel and other rates for each component of its state:
    dt: (b, l, h, p). A: (h, p, n). B, C: (b, l, h, n).
    """
    return token_by_token(scan_step, x, dt, A, B, C, state, edit)


def scan_step(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One token: the form decoding uses. Arguments as `scan_recurrence` without the l axis.

    Returns: y (b, h, p), state (b, h, p, n).
    """
    state = start_state(x[:, None], B[:, None], state)
    decay, write = _discretise(x, dt, A, B, state.dtype)
    state = decay * state + write
    return read(state, C).to(x.dtype), state


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
    return chunk_by_chunk(_chunk, x, dt, A, B, C, state, chunk_size)


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
    y = read(rearrange(states, "b c q h p n -> b (c q) h p n"), C)
    return y[:, :l].to(x.dtype), state


def _discretise(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, wide: torch.dtype) -> tuple[Tensor, Tensor]:
    """The decay exp(dt A) and what is written, dt x B, both (..., h, p, n)."""
    dt = dt.to(wide)
    return torch.exp(dt[..., None] * A.to(wide)), (dt * x.to(wide))[..., None] * B.to(wide)[..., None, :]


def selective_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None, chunk_size: int = 256, D: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The whole sequence: natively where a native form serves, else by `scan_chunked`, whose arguments these are; and the skip.

    D: (h, p) for y + D x, or None. chunk_size means nothing to native forms. Returns: y (b, l, h, p), the last state (b, h, p, n).
    """
    if form := native.find("selective_scan", x, dt, A, B, C, D, state):
        return form(x, dt, A, B, C, D, state)
    return pure(scan_step, scan_chunked, x, dt, A, B, C, state, chunk_size, D)
