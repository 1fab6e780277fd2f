"""The SSD scan as a torch operator over the native kernel (`ssd.inc`), with its gradient.

`torch.ops.zamba_lab.ssd(x, dt, A, B, C, state)` is known to autograd, to shape propagation (fake tensors, so
torch.compile and FSDP), and to the FLOP counter. Second derivatives are the pure form's business (`kernels.off()`).
"""

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from zamba_lab.ops.kernels.call import call, contiguous, rows, suffix

SLOTS = 16          # independent runs of heads in the backward pass; a constant, so that sums do not depend on threads


@torch.library.custom_op("zamba_lab::ssd", mutates_args=(), device_types="cpu")
def ssd(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """Arguments and results as `ops.ssd.ssd_recurrence`, but the last state only. Types: see `call.serves`."""
    b, l, h, p = x.shape
    g, n = B.shape[2:]
    x, B, C, dt, A, state = rows(x), rows(B), rows(C), dt.contiguous(), A.contiguous(), contiguous(state)
    y, last = x.new_empty(b, l, h, p), dt.new_empty(b, h, p, n)
    call("ssd_forward" + suffix(x), b, l, h, p, g, n, x, *x.stride()[:2], dt, A, B, *B.stride()[:2], C, *C.stride()[:2],
         state, y, last)
    return y, last


@torch.library.custom_op("zamba_lab::ssd_backward", mutates_args=(), device_types="cpu")
def ssd_backward(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None, dy: Tensor,
                 dlast: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, dt, A, B, C and state, from those of y (b, l, h, p) and of the last state."""
    b, l, h, p = x.shape
    g, n = B.shape[2:]
    x, B, C, dy, dt, A = rows(x), rows(B), rows(C), rows(dy), dt.contiguous(), A.contiguous()
    state, dlast = contiguous(state), contiguous(dlast)
    slots = max(1, min(h // g, SLOTS // max(1, b * g)))
    dx, ddt, dA, dstate = x.new_empty(b, l, h, p), torch.empty_like(dt), dt.new_empty(b, h), dt.new_empty(b, h, p, n)
    dB, dC = dt.new_zeros(2, slots, b, l, g, n)
    call("ssd_backward" + suffix(x), slots, b, l, h, p, g, n, x, *x.stride()[:2], dt, A, B, *B.stride()[:2],
         C, *C.stride()[:2], state, dy, *dy.stride()[:2], dlast, dx, ddt, dA, dB, dC, dstate)
    return dx, ddt, dA.sum(0), dB.sum(0).to(B.dtype), dC.sum(0).to(C.dtype), dstate


@ssd.register_fake
def _(x, dt, A, B, C, state):
    return x.new_empty(x.shape), dt.new_empty(x.shape[0], x.shape[2], x.shape[3], B.shape[3])


@ssd_backward.register_fake
def _(x, dt, A, B, C, state, dy, dlast):
    return (x.new_empty(x.shape), torch.empty_like(dt, memory_format=torch.contiguous_format), torch.empty_like(A),
            B.new_empty(B.shape), C.new_empty(C.shape), dt.new_empty(x.shape[0], x.shape[2], x.shape[3], B.shape[3]))


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _gradients(ctx, dy, dlast):
    x, dt, A, B, C, state = ctx.saved_tensors
    if dy is None:
        dy = torch.zeros_like(x)
    *grads, dstate = torch.ops.zamba_lab.ssd_backward(x, dt, A, B, C, state, dy, dlast)
    return (*grads, None if state is None else dstate)


ssd.register_autograd(_gradients, setup_context=_save)


@register_flop_formula(torch.ops.zamba_lab.ssd)
def _flops(x_shape, dt_shape, A_shape, B_shape, C_shape, state_shape, *args, **kwargs) -> int:
    """Two multiply-adds for each state element and token: one writes it, one reads it. Decays are not counted."""
    b, l, h, p = x_shape
    return 4 * b * l * h * p * B_shape[3]


@register_flop_formula(torch.ops.zamba_lab.ssd_backward)
def _flops_backward(x_shape, dt_shape, A_shape, B_shape, C_shape, state_shape, *args, **kwargs) -> int:
    return 3 * _flops(x_shape, dt_shape, A_shape, B_shape, C_shape, state_shape)
