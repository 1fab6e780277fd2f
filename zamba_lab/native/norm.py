"""RMSNorm, gated or not, as a torch operator over the native kernel (`norm.inc`), with its gradient."""

import torch
from torch import Tensor

from zamba_lab.native import direct
from zamba_lab.native.call import COMPUTED, call, filled, suffix
from zamba_lab.native.memory import empty

SLOTS = 64  # independent runs of rows in the backward pass; a constant, so that sums do not depend on threads

WORK = 2  # nanoseconds for an element, about


def forward(y: Tensor, z: Tensor | None, weight: Tensor, eps: float, groups: int, early: bool) -> Tensor:
    """y and z: (..., e). early: round before the weight. Only the operators call this."""
    y, z = _flat(y), _flat(z)
    out = empty(y, *y.shape)
    call(
        "norm_forward" + suffix(y),
        WORK * y.numel(),
        *y.shape,
        groups,
        float(eps),
        int(early),
        *_step(y),
        *_step(z),
        filled(weight.to(y.dtype)),
        out,
    )
    return out


def backward(y: Tensor, z: Tensor | None, weight: Tensor, eps: float, groups: int, dout: Tensor, dy: Tensor, dz: Tensor | None) -> Tensor:
    """Write the gradients of y and z to dy and dz (..., e); return that of weight (e,), in the computing type."""
    y, z, dout, (count, e) = _flat(y), _flat(z), _flat(dout), _flat(y).shape
    slots = min(SLOTS, count)
    dweight = y.new_empty(slots, e, dtype=COMPUTED[y.dtype])
    call(
        "norm_backward" + suffix(y),
        2 * WORK * y.numel(),
        slots,
        count,
        e,
        groups,
        eps,
        *_step(y),
        *_step(z),
        filled(weight.to(y.dtype)),
        *_step(dout),
        *_step(_flat_view(dy)),
        *_step(_flat_view(dz)),
        dweight,
    )
    return dweight.sum(0)


def _flat(t: Tensor | None) -> Tensor | None:
    """(rows, e), the last axis without gaps; a copy only where the rows do not lie evenly."""
    if t is None:
        return None
    t = t.reshape(-1, t.shape[-1])
    return t if t.stride(1) == 1 or t.shape[1] == 1 else t.contiguous()


def _flat_view(t: Tensor | None) -> Tensor | None:
    return None if t is None else t.view(-1, t.shape[-1])


def _step(t: Tensor | None) -> tuple[Tensor | None, int]:
    return (None, 0) if t is None else (t, t.stride(0))


def rms_norm(y: Tensor, z: Tensor | None, weight: Tensor, eps: float, groups: int, early: bool) -> Tensor:
    """y, z: (..., e), gated if z is not None. weight: (e,). early: round before the weight. Returns (..., e)."""
    return (_plain if direct.bare(y, z, weight) else _operator)(y, z, weight, eps, groups, early)


def _plain(y: Tensor, z: Tensor | None, weight: Tensor, eps: float, groups: int, early: bool) -> Tensor:
    return forward(y, z, weight, eps, groups, early).view(y.shape)


_operator = torch.library.custom_op("zamba_lab::rms_norm", _plain, mutates_args=(), device_types="cpu")


@torch.library.custom_op("zamba_lab::rms_norm_backward", mutates_args=(), device_types="cpu")
def rms_norm_backward(y: Tensor, z: Tensor | None, weight: Tensor, eps: float, groups: int, dout: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of y, z and weight; z's is of no use where there is none."""
    dy, dz = empty(y, *y.shape), empty(y, *((0,) if z is None else y.shape))
    dweight = backward(y, z, weight, eps, groups, dout, dy, None if z is None else dz)
    return dy, dz, dweight.to(weight.dtype)


@_operator.register_fake
def _(y, z, weight, eps, groups, early):
    return y.new_empty(y.shape)


@rms_norm_backward.register_fake
def _(y, z, weight, eps, groups, dout):
    return y.new_empty(y.shape), y.new_empty(0 if z is None else y.shape), weight.new_empty(weight.shape)


def _save(ctx, inputs, output):
    y, z, weight, ctx.eps, ctx.groups, _ = inputs
    ctx.save_for_backward(y, z, weight)


def _gradients(ctx, dout):
    y, z, weight = ctx.saved_tensors
    dy, dz, dweight = torch.ops.zamba_lab.rms_norm_backward(y, z, weight, ctx.eps, ctx.groups, dout)
    return dy, None if z is None else dz, dweight, None, None, None


_operator.register_autograd(_gradients, setup_context=_save)
