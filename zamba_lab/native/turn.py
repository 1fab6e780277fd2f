"""Rotary positions as one torch operator over the native kernel (`turn.inc`); its gradient is the same operator, turning back."""

import torch
from torch import Tensor

from zamba_lab.native import direct
from zamba_lab.native.call import call, filled, suffix
from zamba_lab.native.memory import empty

WORK = 0.5  # nanoseconds for an element, about


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x: (b, h, l, p), p even. cos, sin: (b or 1, 1, l, p/2). Returns (b, h, l, p), in memory (b, l, h, p), as projections lie."""
    return (_plain if direct.bare(x, cos, sin) else _operator)(x, cos, sin, False)


def _plain(x: Tensor, cos: Tensor, sin: Tensor, back: bool) -> Tensor:
    b, h, l, p = x.shape
    x = x if x.stride(3) == 1 else x.contiguous()
    y = empty(x, b, l, h, p)
    call(
        "turn" + suffix(x),
        WORK * x.numel(),
        b,
        l,
        h,
        p,
        len(cos),
        int(back),
        x,
        x.stride(0),
        x.stride(2),
        x.stride(1),
        filled(cos),
        filled(sin),
        y,
    )
    return y.transpose(1, 2)


_operator = torch.library.custom_op("zamba_lab::turn", _plain, mutates_args=(), device_types="cpu")


@_operator.register_fake
def _(x, cos, sin, back):
    b, h, l, p = x.shape
    return x.new_empty(b, l, h, p).transpose(1, 2)


def _save(ctx, inputs, output):
    _, cos, sin, ctx.back = inputs
    ctx.save_for_backward(cos, sin)


def _gradients(ctx, dy):
    return torch.ops.zamba_lab.turn(dy, *ctx.saved_tensors, not ctx.back), None, None, None


_operator.register_autograd(_gradients, setup_context=_save)
