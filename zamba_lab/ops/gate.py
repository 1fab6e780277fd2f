"""The gate of a gated MLP."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from zamba_lab.ops.kernels import direct, memory
from zamba_lab.ops.kernels.step import gate_step

# "gelu" is the exact form with erf: the released weights were trained with it. The native form counts in this order.
ACTIVATION = {"gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu, "relu": F.relu}
_aten = torch.ops.aten
_INTO = {"gelu": _aten.gelu.out, "gelu_tanh": partial(_aten.gelu.out, approximate="tanh"), "silu": _aten.silu.out,
         "relu": _aten.relu.out}
_KIND = {name: kind for kind, name in enumerate(ACTIVATION)}


def gated(both: Tensor, activation: str) -> Tensor:
    """act(gate) * up. both: (..., 2d), gate and up side by side. Returns (..., d)."""
    if direct.few(both) and both.shape[-1] % 2 == 0 and direct.serves(both):
        return gate_step(both, _KIND[activation])
    gate, up = both.chunk(2, dim=-1)
    if direct.large(both):
        return _INTO[activation](gate, out=memory.empty(both, *gate.shape)).mul_(up)
    return ACTIVATION[activation](gate) * up
