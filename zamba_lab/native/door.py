"""Which native form of an operation serves some tensors now: decided here and nowhere else. README.md beside this file says why.

`ops/` asks `find`. A form never sees tensors that do not fit each other: those go to the pure form, for its result or its error.
"""

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from zamba_lab.native import build, conv, gemv, gpu, norm, scan, ssd
from zamba_lab.native.call import COMPUTED
from zamba_lab.native.needs import Needs


class Form(NamedTuple):
    """An operation's native forms, of one signature, and what their tensors must be.

    plain: past torch's dispatcher, for inference. operator: registered with torch, with its gradient. cuda: the published kernel.
    """

    needs: Needs
    plain: Callable
    operator: Callable | None = None
    cuda: Callable | None = None


FORMS = {
    "ssd": Form(ssd.NEEDS, ssd.plain, ssd.operator, gpu.ssd),
    "selective_scan": Form(scan.NEEDS, scan.plain, scan.operator, gpu.selective_scan),
    "conv_silu": Form(conv.NEEDS, conv.plain, conv.operator, gpu.conv_silu),
    "rms_norm": Form(norm.NEEDS, norm.plain, norm.operator),
    "gated_rms_norm": Form(norm.NEEDS_GATED, norm.plain, norm.operator),
    "linear": Form(gemv.NEEDS, gemv.linear),
    "linear_int8": Form(gemv.NEEDS_INT8, gemv.linear_int8),
}


def find(name: str, *tensors: Tensor | None, **numbers: int) -> Callable | None:
    """The native form of an operation for these tensors as things are now, or None: then the pure form does it.

    name: a key of FORMS. tensors: the operation's, in the order of the form's own. numbers: those of its other arguments that its
    needs name. The form is then to be called with these tensors.
    """
    form, x = FORMS[name], tensors[0]
    if _off or x is None or (form.operator is None and _dispatcher_needed()) or _transformed():
        return None
    if x.is_cuda:
        return form.cuda if form.cuda and form.needs.fit(tensors, numbers) and gpu.serves(name, *tensors) else None
    if not (x.device.type == "cpu" and _known(x, form) and form.needs.fit(tensors, numbers) and build.available()):
        return None
    if form.operator is not None and (_dispatcher_needed() or torch._C._autograd._profiler_enabled()):
        return form.operator
    return form.plain


def _transformed() -> bool:
    """Whether tensors may carry tangents or a batch axis that nobody sees, or a tracer writes down what torch is called for."""
    return forward_ad._current_level >= 0 or torch._C._functorch.get_dynamic_layer_stack_depth() > 0 or torch.jit.is_tracing()


def _dispatcher_needed() -> bool:
    """Whether somebody sees only what goes through torch's dispatcher: autograd, a compiler, a mode, autocast."""
    return (
        torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or bool(torch._C._len_torch_dispatch_stack())
        or bool(torch._C._len_torch_function_stack())
        or torch.is_autocast_enabled("cpu")
    )


def _known(x: Tensor, form: Form) -> bool:
    """Whether there is code for this dtype. float16, which no processor computes in, is said once."""
    if x.dtype == torch.float16 and form.operator is not None and build.available():
        _warn_once(
            "float16 on a CPU goes through the pure PyTorch forms, correctly but several times slower: the native forms take "
            "float32, bfloat16 and float64"
        )
    return x.dtype in COMPUTED


@cache
def _warn_once(text: str) -> None:
    warnings.warn(text, RuntimeWarning, stacklevel=4)


_off = 0  # how many `off()` are open, in whatever threads
_counting = threading.Lock()


@contextmanager
def off() -> Iterator[None]:
    """Within it, in every thread, only the pure PyTorch forms run: to compare with them, or for second derivatives."""
    _count(1)
    try:
        yield
    finally:
        _count(-1)


def _count(change: int) -> None:
    global _off
    with _counting:
        _off += change
