"""How a native form becomes a torch operator with a gradient.

Such an operator is known to autograd, to shape propagation (fake tensors, so torch.compile, export and FSDP) and to the FLOP
counter. Its gradient has none of its own: second derivatives are the pure form's business.
"""

import inspect
from collections.abc import Callable
from functools import wraps

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from zamba_lab.native.needs import Needs


def register(name: str, needs: Needs, forward: Callable, backward: Callable, shapes: Callable, flops: Callable, kept: int = 0) -> Callable:
    """Register `zamba_lab::name` and its gradient `zamba_lab::name_backward`; return the former. Both raise ValueError for tensors
    that do not fit.

    Args:
        needs: what tensors and numbers must be.
        forward: (*tensors, *numbers) -> output or outputs, annotated as `torch.library` asks. Tensors may be None.
        backward: (*tensors, *numbers, *kept outputs, *gradients of the other outputs) -> a gradient for each tensor; those of a
            tensor that is None mean nothing. The first output's gradient is never None.
        shapes: as forward, but only makes outputs of the right shapes and types.
        flops: (*shapes of tensors, *numbers) -> multiplications and additions of forward; backward counts three times these.
        kept: how many of the outputs, the last ones, are for backward only.
    """
    n_tensors = len(needs.parts)
    operator = torch.library.custom_op(f"zamba_lab::{name}", _checked(name, needs, forward), mutates_args=(), device_types="cpu")
    operator.register_fake(shapes)
    gradient = torch.library.custom_op(f"zamba_lab::{name}_backward", _checked(name, needs, backward), mutates_args=(), device_types="cpu")
    gradient.register_fake(lambda *given: [given[0].new_empty(0) if t is None else t.new_empty(t.shape) for t in given[:n_tensors]])
    gradient.register_autograd(_no_second_derivative)

    def save(ctx, inputs, output):
        outputs = output if isinstance(output, tuple) else (output,)
        ctx.numbers, ctx.first = inputs[n_tensors:], (outputs[0].shape, outputs[0].dtype)
        extra = outputs[len(outputs) - kept :]
        ctx.mark_non_differentiable(*extra)
        ctx.save_for_backward(*inputs[:n_tensors], *extra)

    def differentiate(ctx, dfirst, *others):
        saved = ctx.saved_tensors  # read once: activation checkpointing recomputes them for one reading only
        tensors, extra = saved[:n_tensors], saved[n_tensors:]
        if dfirst is None:
            dfirst = tensors[0].new_zeros(ctx.first[0], dtype=ctx.first[1])
        gradients = gradient(*tensors, *ctx.numbers, *extra, dfirst, *others[: len(others) - kept])
        return *(None if t is None else g for t, g in zip(tensors, gradients)), *(None for _ in ctx.numbers)

    operator.register_autograd(differentiate, setup_context=save)
    register_flop_formula(getattr(torch.ops.zamba_lab, name))(lambda *shapes, **kw: flops(*shapes))
    register_flop_formula(getattr(torch.ops.zamba_lab, f"{name}_backward"))(lambda *shapes, **kw: 3 * flops(*shapes))
    return operator


def _checked(name: str, needs: Needs, function: Callable) -> Callable:
    """The function, of the same signature, after a look at its tensors: addresses of others would be read past their ends."""
    n_tensors = len(needs.parts)
    numbers = list(inspect.signature(function).parameters)[n_tensors:]

    @wraps(function)
    def call(*given):
        needs.require(f"zamba_lab::{name}", given[:n_tensors], dict(zip(numbers, given[n_tensors:])))
        return function(*given)

    return call


def as_gradients(tensors: tuple[Tensor | None, ...], gradients: tuple[Tensor | None, ...]) -> list[Tensor]:
    """Gradients in their tensors' dtypes, nothing where there is no tensor: what an operator's backward returns."""
    first = tensors[0]
    return [first.new_empty(0) if t is None or g is None else g.to(t.dtype).contiguous() for t, g in zip(tensors, gradients)]


def _no_second_derivative(ctx, *_):
    raise RuntimeError("the native forms have no second derivatives: compute both derivatives within zamba_lab.native.off()")
