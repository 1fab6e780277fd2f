"""Causal convolution and SiLU as one torch operator over the native kernel (`conv.inc`), with its gradient."""

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from zamba_lab.native.call import COMPUTED, call, carried, filled, rows, steps, suffix
from zamba_lab.native.memory import empty

MOST_TAPS = 16  # conv.inc keeps as many row pointers

WORK = 2  # nanoseconds for a channel and token, about


def forward(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """y (b, l, e) and the last inputs (b, w-1, e). Arguments as `ops.conv.conv_silu`; only the operators call this."""
    (b, l, e), taps = x.shape, weight.shape[1]
    x, state = rows(x), carried("conv state", state, (b, taps - 1, e), x.dtype)
    y, last = empty(x, b, l, e), x.new_empty(b, taps - 1, e)
    call("conv_forward" + suffix(x), WORK * x.numel(), b, l, e, taps, *steps(x), *_parameters(weight, bias, x), filled(state), y, last)
    return y, last


def backward(
    x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None, dy: Tensor, dlast: Tensor | None, dx: Tensor
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Write the gradient of x to dx (b, l, e); return those of weight, bias (in the computing type) and state."""
    (b, l, e), taps = x.shape, weight.shape[1]
    x, dy, back = rows(x), rows(dy), taps - 1
    state = carried("conv state", state, (b, back, e), x.dtype)
    sums = x.new_empty(b * ((l + 63) // 64), taps + 1, e, dtype=COMPUTED[x.dtype])
    dstate = None if state is None else torch.empty_like(state, memory_format=torch.contiguous_format)
    call(
        "conv_backward" + suffix(x),
        2 * WORK * x.numel(),
        b,
        l,
        e,
        taps,
        *steps(x),
        *_parameters(weight, bias, x),
        filled(state),
        *steps(dy),
        *steps(dx),
        dstate,
        sums,
    )
    if dlast is not None and back:
        new = min(back, l)  # of the last inputs so many are of x, the others were in the state before
        dx[:, l - new :] += dlast[:, back - new :]
        if dstate is not None and new < back:
            dstate[:, new:] += dlast[:, : back - new]
    sums = sums.sum(0)
    return sums[:taps].T, sums[taps], dstate


def _parameters(weight: Tensor, bias: Tensor | None, x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Both in x's type and without gaps. Raises ValueError if the kernel would read or write past an end."""
    e = x.shape[2]
    if weight.shape[1] > MOST_TAPS or len(weight) != e or (bias is not None and bias.shape != (e,)):
        raise ValueError(
            f"the weight must be (channels, taps), of at most {MOST_TAPS} taps, and the bias (channels,): got "
            f"{tuple(weight.shape)} and {None if bias is None else tuple(bias.shape)} for {e} channels"
        )
    return filled(weight.to(x.dtype)), None if bias is None else filled(bias.to(x.dtype))


@torch.library.custom_op("zamba_lab::conv_silu", mutates_args=(), device_types="cpu")
def conv_silu(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor]:
    return forward(x, weight, bias, state)


@torch.library.custom_op("zamba_lab::conv_silu_backward", mutates_args=(), device_types="cpu")
def conv_silu_backward(
    x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None, dy: Tensor, dlast: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, weight, bias and state; those of what was not given are of no use."""
    dx = empty(x, *x.shape)
    dweight, dbias, dstate = backward(x, weight, bias, state, dy, dlast, dx)
    dstate = x.new_empty(x.shape[0], weight.shape[1] - 1, x.shape[2]) if dstate is None else dstate
    return dx, dweight.to(weight.dtype).contiguous(), dbias.to(weight.dtype).clone(), dstate


@conv_silu.register_fake
def _(x, weight, bias, state):
    return x.new_empty(x.shape), x.new_empty(x.shape[0], weight.shape[1] - 1, x.shape[2])


@conv_silu_backward.register_fake
def _(x, weight, bias, state, dy, dlast):
    return (
        x.new_empty(x.shape),
        weight.new_empty(weight.shape),
        weight.new_empty(weight.shape[0]),
        x.new_empty(x.shape[0], weight.shape[1] - 1, x.shape[2]),
    )


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _gradients(ctx, dy, dlast):
    x, weight, bias, state = ctx.saved_tensors
    dy = torch.zeros_like(x) if dy is None else dy
    dx, dweight, dbias, dstate = torch.ops.zamba_lab.conv_silu_backward(x, weight, bias, state, dy, dlast)
    return dx, dweight, None if bias is None else dbias, None if state is None else dstate


@register_flop_formula(torch.ops.zamba_lab.conv_silu)
def _(x_shape, weight_shape, *args, **kwargs) -> int:
    b, l, e = x_shape
    return 2 * b * l * e * weight_shape[1]


@register_flop_formula(torch.ops.zamba_lab.conv_silu_backward)
def _(x_shape, weight_shape, *args, **kwargs) -> int:
    b, l, e = x_shape
    return 4 * b * l * e * weight_shape[1]


conv_silu.register_autograd(_gradients, setup_context=_save)
