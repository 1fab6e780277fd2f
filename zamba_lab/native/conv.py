"""Causal convolution and SiLU by `conv.c`, which has the equations, and its gradient."""

from torch import Tensor

from zamba_lab.native.call import COMPUTED, call, filled, rows, steps, suffix
from zamba_lab.native.needs import Needs
from zamba_lab.native.operator import as_gradients, register

MOST_TAPS = 16  # conv.c keeps as many row pointers
BLOCK = 64  # tokens that are one piece of work; conv.c says the same
WORK = 2  # nanoseconds for a channel and token, about

NEEDS = Needs("b l e, e w, e?, b w-1 e?", lambda size, tensors: size["w"] <= MOST_TAPS and size.get("w-1", size["w"] - 1) == size["w"] - 1)


def plain(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """y (b, l, e) and the last inputs (b, w-1, e), as `ops.conv.conv_silu`."""
    (b, l, e), taps = x.shape, weight.shape[1]
    x = rows(x)
    y, last = x.new_empty(b, l, e), x.new_empty(b, taps - 1, e)
    call("conv_forward" + suffix(x), WORK * x.numel(), b, l, e, taps, *steps(x), filled(weight), filled(bias), filled(state), y, last)
    return y, last


def _backward(x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None, dy: Tensor, dlast: Tensor | None) -> list[Tensor]:
    """The gradients of x, weight, bias and state from those of y and of the last inputs."""
    tensors = x, weight, bias, state
    (b, l, e), taps, back = x.shape, weight.shape[1], weight.shape[1] - 1
    x, dy, dx = rows(x), rows(dy), x.new_empty(b, l, e)
    sums = x.new_empty(b * -(-l // BLOCK), taps + 1, e, dtype=COMPUTED[x.dtype])
    dstate = None if state is None else x.new_empty(b, back, e)
    inputs = *steps(x), filled(weight), filled(bias), filled(state), *steps(dy)
    call("conv_backward" + suffix(x), 2 * WORK * x.numel(), b, l, e, taps, *inputs, *steps(dx), dstate, sums)
    if dlast is not None and back:
        new = min(back, l)  # of the last inputs so many are of x, the others were in the state before
        dx[:, l - new :] += dlast[:, back - new :]
        if dstate is not None and new < back:
            dstate[:, new:] += dlast[:, : back - new]
    sums = sums.sum(0)
    return as_gradients(tensors, (dx, sums[:taps].T.clone(), sums[taps].clone(), dstate))


def _shapes(x, weight, bias, state):
    return x.new_empty(x.shape), x.new_empty(x.shape[0], weight.shape[1] - 1, x.shape[2])


def _flops(x, weight, *others) -> int:
    return 2 * x[0] * x[1] * x[2] * weight[1]


operator = register("conv_silu", NEEDS, plain, _backward, _shapes, _flops)
