"""The Mamba-2 scan by `ssd.c`, which has the equations, and its gradient."""

import torch
from torch import Tensor

from zamba_lab.native.call import as_computed, call, rows, steps, suffix
from zamba_lab.native.needs import Needs
from zamba_lab.native.operator import as_gradients, register

CHUNK, LANES = 32, 16  # tokens that are multiplied as matrices, and what widths are padded to; ssd.c says the same
SLOTS = 16  # independent runs of heads in the backward pass; a constant, so that sums do not depend on threads
WORK = 0.1  # nanoseconds for a state element and token, about

NEEDS = Needs("b l h p, any b l h, any h, b l g n, b l g n, any h?, any b h p n?", lambda size, tensors: size["h"] % size["g"] == 0)


def plain(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, state: Tensor | None) -> tuple[Tensor, Tensor]:
    """y (b, l, h, p) and the last state (b, h, p, n), as `ops.ssd.ssd`. D: (h,) adds D x to y."""
    (b, l, h, p), (g, n) = x.shape, B.shape[2:]
    x, B, C = rows(x), rows(B), rows(C)
    dt, A, D, state = as_computed(x, dt, A, D, state)
    y, last = x.new_empty(b, l, h, p), dt.new_empty(b, h, p, n)
    sizes = b, l, h, p, g, n
    call("ssd_forward" + suffix(x), WORK * x.numel() * n, *sizes, *steps(x), dt, A, *steps(B), *steps(C), D, state, _shared(dt, B), y, last)
    return y, last


def _backward(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor | None, state: Tensor | None, dy: Tensor, dlast: Tensor | None
) -> list[Tensor]:
    """The gradients of x, dt, A, B, C, D and state from those of y and of the last state."""
    tensors = x, dt, A, B, C, D, state
    (b, l, h, p), (g, n) = x.shape, B.shape[2:]
    x, B, C, dy = rows(x), rows(B), rows(C), rows(dy)
    dt, A, D, state, dlast = as_computed(x, dt, A, D, state, dlast)
    slots = max(1, min(h // g, SLOTS // (b * g)))
    dx, ddt, dstate, (dA, dD) = x.new_empty(b, l, h, p), dt.new_empty(b, l, h), dt.new_empty(b, h, p, n), dt.new_empty(2, b, h)
    dB, dC = dt.new_empty(2, slots, b, l, g, n)
    inputs = *steps(x), dt, A, *steps(B), *steps(C), D, state, _shared(dt, B), *steps(dy), dlast
    call("ssd_backward" + suffix(x), 3 * WORK * x.numel() * n, slots, b, l, h, p, g, n, *inputs, *steps(dx), ddt, dA, dD, dB, dC, dstate)
    return as_gradients(tensors, (dx, ddt, dA.sum(0), dB.sum(0), dC.sum(0), dD.sum(0), dstate))


def _shared(dt: Tensor, B: Tensor) -> Tensor:
    """Room for what the heads of a group share: B and C, in rows of whole vectors, and their products."""
    b, l, g, n = B.shape
    return dt.new_empty(b * g * -(-l // CHUNK), CHUNK, CHUNK + 2 * LANES * -(-n // LANES))


def _shapes(x, dt, A, B, C, D, state):
    wide = torch.promote_types(x.dtype, torch.float32)
    return x.new_empty(x.shape), x.new_empty(x.shape[0], x.shape[2], x.shape[3], B.shape[3], dtype=wide)


def _flops(x, dt, A, B, *others) -> int:
    """Three multiply-adds for each state element and token, to decay, write and read it: as `config.flops_per_token`."""
    b, l, h, p = x
    return 6 * b * l * h * p * B[3]


operator = register("ssd", NEEDS, plain, _backward, _shapes, _flops)
