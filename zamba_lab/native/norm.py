"""RMSNorm, gated or not, by `norm.c`, which has the equations, and its gradient."""

from torch import Tensor

from zamba_lab.native.call import COMPUTED, call, filled, suffix
from zamba_lab.native.needs import Needs, Tensors
from zamba_lab.native.operator import as_gradients, register

SLOTS = 64  # independent runs of rows in the backward pass; a constant, so that sums do not depend on threads
WORK = 2  # nanoseconds for an element, about


def _groups_divide(size: dict, tensors: Tensors) -> bool:
    return size["groups"] > 0 and size["d"] % size["groups"] == 0


NEEDS = Needs("... d, ... d?, d", _groups_divide)
NEEDS_GATED = Needs("... d, ... d, d", _groups_divide)


def plain(y: Tensor, z: Tensor | None, weight: Tensor, eps: float, groups: int, early: bool) -> Tensor:
    """y, z: (..., e), gated if z is not None. weight: (e,). early: round before the weight. Returns (..., e)."""
    rows, gates = _matrix(y), _matrix(z)
    out = y.new_empty(y.shape)
    name, work = "norm_forward" + suffix(y), WORK * y.numel()
    call(name, work, *rows.shape, groups, float(eps), int(early), *_step(rows), *_step(gates), filled(weight), out)
    return out


def _backward(y: Tensor, z: Tensor | None, weight: Tensor, eps: float, groups: int, early: bool, dout: Tensor) -> list[Tensor]:
    """The gradients of y, z and weight. Rounding early counts as no rounding."""
    rows, gates, toward = _matrix(y), _matrix(z), _matrix(dout)
    count, e = rows.shape
    slots = min(SLOTS, count)
    dy, dz = y.new_empty(y.shape), None if z is None else y.new_empty(y.shape)
    dweight = y.new_empty(slots, e, dtype=COMPUTED[y.dtype])
    inputs = *_step(rows), *_step(gates), filled(weight), *_step(toward)
    outputs = dy, e, dz, 0 if dz is None else e, dweight
    call("norm_backward" + suffix(y), 2 * WORK * y.numel(), slots, count, e, groups, float(eps), *inputs, *outputs)
    return as_gradients((y, z, weight), (dy, dz, dweight.sum(0)))


def _matrix(t: Tensor | None) -> Tensor | None:
    """(rows, e), the last axis without gaps; a copy only where the rows do not lie evenly."""
    if t is None:
        return None
    t = t.reshape(-1, t.shape[-1])
    return t if t.stride(1) == 1 or t.shape[1] == 1 else t.contiguous()


def _step(t: Tensor | None) -> tuple[Tensor | None, int]:
    return (None, 0) if t is None else (t, t.stride(0))


def _shapes(y, z, weight, eps, groups, early):
    return y.new_empty(y.shape)


def _flops(y, *others) -> int:
    return 0  # as torch counts for its own norms: no matrix product


operator = register("rms_norm", NEEDS, plain, _backward, _shapes, _flops)
