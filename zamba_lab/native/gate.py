"""The inside of a gated MLP, act(gate) * up, as one torch operator over the native kernel (`gate.inc`), with its gradient.

It reads both halves where they lie and writes both gradients into one tensor: torch's own operations pass over them nine times.
"""

import torch
from torch import Tensor

from zamba_lab.native import direct
from zamba_lab.native.call import call, filled, suffix
from zamba_lab.native.memory import empty

WORK = 1  # nanoseconds for an element, about


def gated(both: Tensor, kind: int) -> Tensor:
    """act(gate) * up. both: (..., 2d), gate and up side by side; kind: as `gate.inc` has it. Returns (..., d)."""
    return (_plain if direct.bare(both) else _operator)(both, kind)


def _plain(both: Tensor, kind: int) -> Tensor:
    both, d = filled(both), both.shape[-1] // 2
    y = empty(both, *both.shape[:-1], d)
    call("gate_forward" + suffix(both), WORK * y.numel(), y.numel() // d, d, kind, both, y)
    return y


_operator = torch.library.custom_op("zamba_lab::gated", _plain, mutates_args=(), device_types="cpu")


@torch.library.custom_op("zamba_lab::gated_backward", mutates_args=(), device_types="cpu")
def gated_backward(both: Tensor, kind: int, dy: Tensor) -> Tensor:
    """The gradient of both."""
    both, d = filled(both), both.shape[-1] // 2
    dboth = empty(both, *both.shape)
    call("gate_backward" + suffix(both), 2 * WORK * dy.numel(), dy.numel() // d, d, kind, both, filled(dy), dboth)
    return dboth


@_operator.register_fake
def _(both, kind):
    return both.new_empty(*both.shape[:-1], both.shape[-1] // 2)


@gated_backward.register_fake
def _(both, kind, dy):
    return both.new_empty(both.shape)


def _save(ctx, inputs, output):
    both, ctx.kind = inputs
    ctx.save_for_backward(both)


def _gradients(ctx, dy):
    return torch.ops.zamba_lab.gated_backward(*ctx.saved_tensors, ctx.kind, dy), None


_operator.register_autograd(_gradients, setup_context=_save)
