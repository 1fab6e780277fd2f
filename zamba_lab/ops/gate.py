"""The gate of a gated MLP."""

import torch.nn.functional as F
from torch import Tensor

from zamba_lab import native
from zamba_lab.native import direct
from zamba_lab.native.step import gate_step

# "gelu" is the exact form with erf: the released weights were trained with it. The native forms count in this order.
ACTIVATION = {"gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu, "relu": F.relu}
_KIND = {name: kind for kind, name in enumerate(ACTIVATION)}


def gated(both: Tensor, activation: str) -> Tensor:
    """act(gate) * up. both: (..., 2d), gate and up side by side. Returns (..., d). The native forms round once, torch's twice."""
    if both.shape[-1] % 2 == 0 and native.serves(both):
        if direct.few(both) and direct.serves(both):
            return gate_step(both, _KIND[activation])
        return native.gated(both, _KIND[activation])
    gate, up = both.chunk(2, dim=-1)
    return ACTIVATION[activation](gate) * up
