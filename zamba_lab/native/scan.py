"""The selective scan as a torch operator over the native kernel (`scan.inc`), with its gradient.

`torch.ops.zamba_lab.selective_scan(x, dt, A, B, C, D, state, keep)` is known to autograd, to shape propagation and to
the FLOP counter, as `ssd` is. Its third result is for the backward pass alone: the states before each chunk.
"""

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from zamba_lab.native.call import call, carried, filled, suffix
from zamba_lab.native.memory import empty

# As scan.c says: tokens between kept states, and what the axes of a kept state are padded to.
CHUNK, LANES, TILE = 32, 16, 4
RUN = 64  # channels that are worth a task of their own
WORK = 0.3  # nanoseconds for a state element and token, about
SLOTS = 16  # tasks the backward pass is cut into at most; a constant, so that sums do not depend on threads


def forward(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, state: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """As the operator below. Only the operators call this."""
    (b, l, h, p), n = x.shape, B.shape[3]
    state = carried("state", state, (b, h, p, n), dt.dtype)
    y, last = empty(x, b, l, h, p), dt.new_empty(b, h, p, n)
    starts = (dt.new_zeros if p % LANES else dt.new_empty)(_kept(x, B, keep))  # the kernel may not fill the padding
    call(
        "scan_forward" + suffix(x),
        WORK * x.numel() * n,
        max(1, p // RUN),
        b,
        l,
        h,
        p,
        n,
        *_steps(x),
        *_steps(dt),
        filled(A),
        *_steps(B),
        *_steps(C),
        filled(D),
        filled(state),
        y,
        last,
        starts if keep else None,
    )
    return y, last, starts


def backward(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, starts: Tensor, dy: Tensor, dlast: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """As the operator below. Only the operators call this."""
    (b, l, h, p), n = x.shape, B.shape[3]
    parts = max(1, min(p // RUN, SLOTS // max(1, b * h)))
    dx, ddt, dstate = empty(x, b, l, h, p), empty(dt, b, l, h, p), dt.new_empty(b, h, p, n)
    dA, dD, dB, dC = dt.new_empty(b, h, p, n), dt.new_empty(b, h, p), *dt.new_empty(2, parts, b, l, h, n)
    call(
        "scan_backward" + suffix(x),
        3 * WORK * x.numel() * n,
        parts,
        b,
        l,
        h,
        p,
        n,
        *_steps(x),
        *_steps(dt),
        filled(A),
        *_steps(B),
        *_steps(C),
        filled(D),
        filled(starts),
        *_steps(dy),
        filled(dlast),
        dx,
        ddt,
        dA,
        dB,
        dC,
        dD,
        dstate,
    )
    return dx, ddt, dA.sum(0), dB.sum(0).to(B.dtype), dC.sum(0).to(C.dtype), dD.sum(0), dstate


def _steps(t: Tensor) -> tuple[Tensor, int, int, int]:
    """A tensor with the strides of its first three axes; a copy only if the last has gaps."""
    t = t if t.stride(3) == 1 or t.shape[3] == 1 else t.contiguous()
    return t, *t.stride()[:3]


def _kept(x: Tensor, B: Tensor, keep: bool) -> tuple[int, ...]:
    b, l, h, p = x.shape
    return (b, h, -(-l // CHUNK), -(-p // LANES) * LANES, -(-B.shape[3] // TILE) * TILE) if keep else (0,)


@torch.library.custom_op("zamba_lab::selective_scan", mutates_args=(), device_types="cpu")
def selective_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, state: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Arguments as `ops.scan.scan_recurrence`, types as `call.serves`; D (h, p) adds D x to y, keep spares the backward
    pass a scan. Returns: y, the last state, and the kept states in the kernel's own layout (nothing if not keep)."""
    return forward(x, dt, A, B, C, D, state, keep)


@torch.library.custom_op("zamba_lab::selective_scan_backward", mutates_args=(), device_types="cpu")
def selective_scan_backward(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, starts: Tensor, dy: Tensor, dlast: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, dt, A, B, C, D (h, p) and the first state, from those of y and of the last state."""
    return backward(x, dt, A, B, C, D, starts, dy, dlast)


@selective_scan.register_fake
def _(x, dt, A, B, C, D, state, keep):
    return (x.new_empty(x.shape), dt.new_empty(x.shape[0], x.shape[2], x.shape[3], B.shape[3]), dt.new_empty(_kept(x, B, keep)))


@selective_scan_backward.register_fake
def _(x, dt, A, B, C, D, starts, dy, dlast):
    return (
        x.new_empty(x.shape),
        dt.new_empty(x.shape),
        dt.new_empty(A.shape),
        B.new_empty(B.shape),
        C.new_empty(C.shape),
        dt.new_empty(A.shape[:2]),
        dt.new_empty(x.shape[0], *A.shape),
    )


def _save(ctx, inputs, output):
    *tensors, ctx.keep = inputs
    ctx.save_for_backward(*tensors, output[2])
    ctx.mark_non_differentiable(output[2])


def _gradients(ctx, dy, dlast, _):
    x, dt, A, B, C, D, state, starts = ctx.saved_tensors
    if not ctx.keep:
        starts = torch.ops.zamba_lab.selective_scan(x, dt, A, B, C, D, state, True)[2]
    if dy is None:
        dy = torch.zeros_like(x)
    *grads, dD, dstate = torch.ops.zamba_lab.selective_scan_backward(x, dt, A, B, C, D, starts, dy, dlast)
    return *grads, None if D is None else dD, None if state is None else dstate, None


selective_scan.register_autograd(_gradients, setup_context=_save)


@register_flop_formula(torch.ops.zamba_lab.selective_scan)
def _flops(x_shape, dt_shape, A_shape, B_shape, *args, **kwargs) -> int:
    """Three multiply-adds for each state element and token, to decay, write and read it: as `config.flops_per_token`."""
    b, l, h, p = x_shape
    return 6 * b * l * h * p * B_shape[3]


@register_flop_formula(torch.ops.zamba_lab.selective_scan_backward)
def _flops_backward(x_shape, dt_shape, A_shape, B_shape, *args, **kwargs) -> int:
    return 3 * _flops(x_shape, dt_shape, A_shape, B_shape)
