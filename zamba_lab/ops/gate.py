"""The gate of a gated MLP."""

import torch
import torch.nn.functional as F
from torch import Tensor

# "gelu" is the exact form with erf: the released weights were trained with it. `native/step.c` counts in this order.
ACTIVATION = {"gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu, "relu": F.relu}


def gated(both: Tensor, activation: str) -> Tensor:
    """act(gate) * up, in float32 or wider, rounded once. both: (..., 2d), gate and up side by side. Returns (..., d), of its dtype."""
    gate, up = both.to(torch.promote_types(both.dtype, torch.float32)).chunk(2, dim=-1)
    return (ACTIVATION[activation](gate) * up).to(both.dtype)
