"""The SSM states after every token: recomputed from their recorded inputs, layer by layer.

A state is many times larger than what it is made from, so the pass records x, dt, B and C, and the recurrence, the
definition that the fast forms are tested against, is run again for the layers asked for.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zamba_lab.lens.passes import run
from zamba_lab.model import Zamba
from zamba_lab.ops.scan import scan_recurrence
from zamba_lab.ops.ssd import ssd_recurrence
from zamba_lab.trace import Trace

RECURRENCE = {"mamba1": scan_recurrence, "mamba2": ssd_recurrence}
INPUTS = ("x", "dt", "B", "C")


def decay_rates(model: Zamba, depth: int) -> Tensor:
    """A = -exp(A_log) of one layer, float32 or wider: (h,) for Mamba-2, (h, p, n) for Mamba-1."""
    A_log = model.layers[depth].mamba.A_log.detach()
    return -torch.exp(A_log.to(torch.promote_types(A_log.dtype, torch.float32)))


def require_ssm(model: Zamba) -> None:
    """Raise ValueError if the model has no SSM to look at."""
    if model.config.mixer not in RECURRENCE:
        raise ValueError(f"SSM states need a mixer among {', '.join(RECURRENCE)}: this model has "
                         f"mixer={model.config.mixer!r}")


@torch.no_grad()
def ssm_states(model: Zamba, trace: Trace, depth: int) -> Tensor:
    """The states of one layer after each token, (b, l, h, p, n).

    Args:
        trace: of a pass from the start of the sequence that kept `layers.{depth}.mamba.{x,dt,B,C}`.
        depth: the layer, 0 <= depth < n_layers.
    """
    require_ssm(model)
    x, dt, B, C = (trace[f"layers.{depth}.mamba.{name}"] for name in INPUTS)
    return RECURRENCE[model.config.mixer](x, dt, decay_rates(model, depth), B, C)[1]


def state_norms(model: Zamba, ids: Tensor) -> Tensor:
    """The Frobenius norm of every head's (p, n) state after every token, over the depth.

    Args:
        ids: (b, l).

    Returns: (n_layers, b, l, h). One layer's states are held at a time.
    """
    require_ssm(model)
    trace = run(model, ids, keep=[f"layers.*.mamba.{name}" for name in INPUTS])
    return torch.stack([torch.linalg.matrix_norm(ssm_states(model, trace, i)) for i in range(model.config.n_layers)])
