"""The processor's matrix unit, Intel's AMX: whether this process may use it, and calls that do."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from zamba_lab.native import build


@cache
def matrix_unit() -> int:
    """1 if the native library has a matrix unit and the system lets this process use it, which this asks for; 0 if there is none;
    -1 if the system refuses."""
    return build.library().matrix_unit()


def on_unit(name: str, function: Callable[..., Tensor], *arguments) -> Tensor:
    """function(*arguments), which a profiler shows under this name. Raises RuntimeError where there is a unit and the system refuses
    it: an instruction of its would end the process."""
    if matrix_unit() < 0:
        raise RuntimeError("the system does not let this process use the processor's matrix unit")
    if torch._C._autograd._profiler_enabled():
        with torch.profiler.record_function(name):
            return function(*arguments)
    return function(*arguments)
