"""The Mamba-1 selective scan by `scan.c`, which has the equations, and its gradient."""

import torch
from torch import Tensor

from zamba_lab.native.call import COMPUTED, as_computed, call, suffix
from zamba_lab.native.needs import Needs
from zamba_lab.native.operator import as_gradients, register

CHUNK, LANES, TILE = 32, 16, 4  # tokens between kept states, and what a kept state's axes are padded to; scan.c says the same
RUN = 64  # channels that are worth a task of their own
SLOTS = 16  # tasks the backward pass is cut into at most; a constant, so that sums do not depend on threads
WORK = 0.3  # nanoseconds for a state element and token, about

NEEDS = Needs("b l h p, any b l h p, any h p n, b l h n, b l h n, any h p?, any b h p n?")


def _forward(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, state: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the last state, and if `keep` the states before each chunk, in the kernel's own layout, for the backward pass."""
    (b, l, h, p), n = x.shape, B.shape[3]
    dt, (A, D, state) = dt.to(COMPUTED[x.dtype]), as_computed(x, A, D, state)
    y, last = x.new_empty(b, l, h, p), dt.new_empty(b, h, p, n)
    starts = (dt.new_zeros if p % LANES else dt.new_empty)(_kept(x, B, keep))  # the kernel does not fill the padding
    inputs = *_steps(x), *_steps(dt), A, *_steps(B), *_steps(C), D, state
    work, parts = WORK * x.numel() * n, max(1, p // RUN)
    call("scan_forward" + suffix(x), work, parts, b, l, h, p, n, *inputs, y, last, starts if keep else None)
    return y, last, starts


def _backward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    state: Tensor | None,
    keep: bool,
    starts: Tensor,
    dy: Tensor,
    dlast: Tensor | None,
) -> list[Tensor]:
    """The gradients of x, dt, A, B, C, D and state from those of y and of the last state."""
    tensors = x, dt, A, B, C, D, state
    (b, l, h, p), n = x.shape, B.shape[3]
    if not keep:
        starts = _forward(*tensors, True)[2]
    dt, (A, D, dlast) = dt.to(COMPUTED[x.dtype]), as_computed(x, A, D, dlast)
    parts = max(1, min(p // RUN, SLOTS // max(1, b * h)))
    dx, ddt, dstate = x.new_empty(b, l, h, p), dt.new_empty(b, l, h, p), dt.new_empty(b, h, p, n)
    dA, dD, dB, dC = dt.new_empty(b, h, p, n), dt.new_empty(b, h, p), *dt.new_empty(2, parts, b, l, h, n)
    inputs = *_steps(x), *_steps(dt), A, *_steps(B), *_steps(C), D, starts, *_steps(dy), dlast
    call("scan_backward" + suffix(x), 3 * WORK * x.numel() * n, parts, b, l, h, p, n, *inputs, dx, ddt, dA, dB, dC, dD, dstate)
    return as_gradients(tensors, (dx, ddt, dA.sum(0), dB.sum(0), dC.sum(0), dD.sum(0), dstate))


def _steps(t: Tensor) -> tuple[Tensor, int, int, int]:
    """A tensor with the strides of its first three axes; a copy only if the last has gaps."""
    t = t if t.stride(3) == 1 or t.shape[3] == 1 else t.contiguous()
    return t, *t.stride()[:3]


def _kept(x: Tensor, B: Tensor, keep: bool) -> tuple[int, ...]:
    b, l, h, p = x.shape
    return (b, h, -(-l // CHUNK), -(-p // LANES) * LANES, -(-B.shape[3] // TILE) * TILE) if keep else (0,)


def _shapes(x, dt, A, B, C, D, state, keep):
    wide = torch.promote_types(x.dtype, torch.float32)
    last = x.new_empty(x.shape[0], x.shape[2], x.shape[3], B.shape[3], dtype=wide)
    return x.new_empty(x.shape), last, x.new_empty(_kept(x, B, keep), dtype=wide)


def _flops(x, dt, A, B, *others) -> int:
    """Three multiply-adds for each state element and token, to decay, write and read it: as `config.flops_per_token`."""
    b, l, h, p = x
    return 6 * b * l * h * p * B[3]


_operator = register("selective_scan", NEEDS, _forward, _backward, _shapes, _flops, kept=1)


def plain(*tensors: Tensor | None) -> tuple[Tensor, Tensor]:
    """y and the last state, as `ops.scan.selective_scan`. x, dt, A, B, C, D (h, p) which adds D x to y, state."""
    return _forward(*tensors, False)[:2]


def operator(*tensors: Tensor | None) -> tuple[Tensor, Tensor]:
    """As `plain`, for autograd."""
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    return _operator(*tensors, keep)[:2]
