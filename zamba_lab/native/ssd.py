"""The SSD scan as a torch operator over the native kernel (`ssd.inc`), with its gradient.

`torch.ops.zamba_lab.ssd(x, dt, A, B, C, D, state)` is known to autograd, to shape propagation (fake tensors, so
torch.compile and FSDP), and to the FLOP counter. Second derivatives are the pure form's business (`native.off()`).
"""

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from zamba_lab.native.call import call, carried, filled, rows, steps, suffix
from zamba_lab.native.memory import empty
from zamba_lab.native.unit import matrix_unit

SLOTS = 16  # independent runs of heads in the backward pass; a constant, so that sums do not depend on threads

CHUNK = 32  # tokens that are multiplied as matrices; ssd.c says the same

WORK = 0.1  # nanoseconds for a state element and token, about


def forward(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """y (b, l, h, p) and the last state (b, h, p, n). Arguments as `ops.ssd.ssd`; only the operators call this."""
    b, l, h, p = x.shape
    g, n = B.shape[2:]
    x, B, C, state = rows(x), rows(B), rows(C), carried("state", state, (b, h, p, n), dt.dtype)
    y, last = empty(x, b, l, h, p), dt.new_empty(b, h, p, n)
    arguments = (b, l, h, p, g, n, *steps(x), filled(dt), filled(A), *steps(B), *steps(C), filled(D), filled(state), _work(dt, B), y, last)
    if x.dtype == torch.bfloat16 and p % 32 == n % 32 == 0 and matrix_unit() == 1:
        not_finite = dt.new_zeros(1, dtype=torch.int64)
        call("ssd_forward_tiles", WORK * x.numel() * n, *arguments, not_finite)
        if not not_finite.item():
            return y, last
    call("ssd_forward" + suffix(x), WORK * x.numel() * n, *arguments)
    return y, last


def backward(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    state: Tensor | None,
    dy: Tensor,
    dlast: Tensor | None,
    dx: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Write the gradient of x to dx (b, l, h, p); return those of dt, A, B, C, D, state, from those of y and the last state.

    Those of B and C are sums over heads in the computing type.
    """
    b, l, h, p = x.shape
    g, n = B.shape[2:]
    x, B, C, dy, state = rows(x), rows(B), rows(C), rows(dy), carried("state", state, (b, h, p, n), dt.dtype)
    slots = max(1, min(h // g, SLOTS // (b * g)))
    ddt, dstate, (dA, dD) = dt.new_empty(b, l, h), dt.new_empty(b, h, p, n), dt.new_empty(2, b, h)
    dB, dC = dt.new_empty(2, slots, b, l, g, n)
    call(
        "ssd_backward" + suffix(x),
        3 * WORK * x.numel() * n,
        slots,
        b,
        l,
        h,
        p,
        g,
        n,
        *steps(x),
        filled(dt),
        filled(A),
        *steps(B),
        *steps(C),
        filled(D),
        filled(state),
        _work(dt, B),
        *steps(dy),
        filled(dlast),
        *steps(dx),
        ddt,
        dA,
        dD,
        dB,
        dC,
        dstate,
    )
    return ddt, dA.sum(0), dB.sum(0), dC.sum(0), dD.sum(0), dstate


def _work(dt: Tensor, B: Tensor) -> Tensor:
    """Room for what the heads of a group share: B and C, in rows of whole vectors, and their products."""
    b, l, g, n = B.shape
    return empty(dt, b * g * -(-l // CHUNK), CHUNK, CHUNK + 2 * 16 * -(-n // 16))


@torch.library.custom_op("zamba_lab::ssd", mutates_args=(), device_types="cpu")
def ssd(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """y and the last state. x, B, C of one stored type, the others of the type it is computed in (`call.COMPUTED`)."""
    return forward(x, dt, A, B, C, D, state)


@torch.library.custom_op("zamba_lab::ssd_backward", mutates_args=(), device_types="cpu")
def ssd_backward(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, state: Tensor | None, dy: Tensor, dlast: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, dt, A, B, C, D and state."""
    dx = empty(x, *x.shape)
    ddt, dA, dB, dC, dD, dstate = backward(x, dt, A, B, C, D, state, dy, dlast, dx)
    return dx, ddt, dA, dB.to(B.dtype), dC.to(C.dtype), dD, dstate


@ssd.register_fake
def _(x, dt, A, B, C, D, state):
    return x.new_empty(x.shape), dt.new_empty(x.shape[0], x.shape[2], x.shape[3], B.shape[3])


@ssd_backward.register_fake
def _(x, dt, A, B, C, D, state, dy, dlast):
    return (
        x.new_empty(x.shape),
        dt.new_empty(dt.shape),
        torch.empty_like(A),
        B.new_empty(B.shape),
        C.new_empty(C.shape),
        torch.empty_like(A),
        dt.new_empty(x.shape[0], x.shape[2], x.shape[3], B.shape[3]),
    )


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _gradients(ctx, dy, dlast):
    x, dt, A, B, C, D, state = ctx.saved_tensors
    dy = torch.zeros_like(x) if dy is None else dy
    *grads, dD, dstate = torch.ops.zamba_lab.ssd_backward(x, dt, A, B, C, D, state, dy, dlast)
    return (*grads, None if D is None else dD, None if state is None else dstate)


ssd.register_autograd(_gradients, setup_context=_save)


def _flops(x_shape, dt_shape, A_shape, B_shape) -> int:
    """Three multiply-adds for each state element and token, to decay, write and read it: as `config.flops_per_token`."""
    b, l, h, p = x_shape
    return 6 * b * l * h * p * B_shape[3]


@register_flop_formula(torch.ops.zamba_lab.ssd)
def _(*shapes, **kwargs) -> int:
    return _flops(*shapes[:4])


@register_flop_formula(torch.ops.zamba_lab.ssd_backward)
def _(*shapes, **kwargs) -> int:
    return 3 * _flops(*shapes[:4])
