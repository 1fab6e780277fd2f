"""The terms of one layer's SSM, recorded in a pass, in one form for both mixers.

Mamba-2 has one step size and one decay rate a head, Mamba-1 a step size for each channel and a rate for each component of
the state besides. Here both are arrays that broadcast: an axis of length 1 stands where a mixer has a single value. What
follows from them, such as the matrix that the SSM applies to its inputs, is then written once.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor

from zamba_lab.config import ZambaConfig
from zamba_lab.model import Zamba
from zamba_lab.ops.scan import scan_step, selective_scan
from zamba_lab.ops.ssd import ssd, ssd_step
from zamba_lab.trace import Trace

STEP = {"mamba1": scan_step, "mamba2": ssd_step}
INPUTS = ("x", "dt", "B", "C")


def require_ssm(model: Zamba) -> None:
    """Raise ValueError if the model has no SSM to look at."""
    if model.config.mixer not in STEP:
        raise ValueError(f"SSM states need a mixer among {', '.join(STEP)}: this model has mixer={model.config.mixer!r}")


def require_invocations(config: ZambaConfig) -> None:
    """Raise ValueError if the model has no shared block to look at."""
    if not config.n_invocations:
        raise ValueError("the config has no shared block to look at: n_shared_blocks 0, hybrid_layers ()")


def require_index(name: str, value: int, count: int) -> None:
    """Raise ValueError unless 0 <= value < count."""
    if not 0 <= value < count:
        raise ValueError(f"{name} must be in 0..{count - 1}: got {value}")


def decay_rates(model: Zamba, depth: int) -> Tensor:
    """A = -exp(A_log) of one layer, float32 or wider: (h,) for Mamba-2, (h, p, n) for Mamba-1."""
    return -torch.exp(widened(model.layers[depth].mamba.A_log.detach()))


def widened(tensor: Tensor) -> Tensor:
    """In float32 or wider: what the lens calculates in."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def names_of_inputs(depths: Iterable[int | str]) -> list[str]:
    """The trace points to keep for `terms` of these depths; "*" is all."""
    return [f"layers.{depth}.mamba.{name}" for depth in depths for name in INPUTS]


@dataclass(frozen=True)
class Terms:
    """x: (b, l, h, p). B, C: (b, l, h, n), each head's own. dt: (b, l, h, p or 1). A: (h, p or 1, n or 1), < 0."""

    x: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor

    @property
    def time(self) -> Tensor:
        """The step sizes summed up to each token, itself included. Wide: decays come from differences of these sums."""
        return torch.cumsum(self.dt.to(self.dt.dtype if self.dt.device.type == "mps" else torch.float64), dim=1)

    def until(self, t: int) -> "Terms":
        """Those of tokens 0..t."""
        x, dt, B, C = (part[:, : t + 1] for part in (self.x, self.dt, self.B, self.C))
        return Terms(x, dt, self.A, B, C)

    def scan(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The SSM applied to any (b, l, h, p) inputs: y without the D skip, of the same shape, and the last state (b, h, p, n)."""
        if self.A.shape[1:] == (1, 1):
            return ssd(x, self.dt[..., 0], self.A[:, 0, 0], self.B, self.C)
        return selective_scan(x, self.dt, self.A, self.B, self.C)


def terms(model: Zamba, trace: Trace, depth: int) -> "Terms":
    """The terms of one layer from a trace that kept `names_of_inputs([depth])`. Raises ValueError if it has no SSM."""
    require_ssm(model)
    x, dt, B, C = (widened(trace[f"layers.{depth}.mamba.{name}"]) for name in INPUTS)
    A = decay_rates(model, depth)
    if model.config.mixer == "mamba2":
        each = x.shape[2] // B.shape[2]  # heads in a group
        B, C = (repeat(part, "b l g n -> b l (g i) n", i=each) for part in (B, C))
        dt, A = rearrange(dt, "b l h -> b l h 1"), rearrange(A, "h -> h 1 1")
    return Terms(x, dt, A, B, C)


def ssm_rows(ssm: Terms, positions: slice) -> Tensor:
    """Rows of the lower-triangular matrix M that the SSM applies to each channel: y_t = sum_s M_ts x_s, without D.

        M_ts = sum_n C_tn exp(A_n (dt_{s+1} + ... + dt_t)) B_sn dt_s        s <= t, else 0

    (Dao & Gu 2024 for Mamba-2; Ali et al. 2024, "The Hidden Attention of Mamba Models", for Mamba-1.)

    Args:
        positions: the tokens t whose rows are wanted.

    Returns: (b, h, p or 1, l, s), l over `positions`, s over all tokens.
    """
    l = ssm.x.shape[1]
    rows = torch.arange(l, device=ssm.x.device)[positions]
    time = rearrange(ssm.time, "b l h p -> b h p l")
    elapsed = time[..., rows, None] - time[..., None, :]  # (b, h, p, l, s)
    hidden = torch.arange(l, device=rows.device) > rows[:, None]
    elapsed = elapsed.masked_fill(hidden, torch.inf).to(ssm.x.dtype)  # exp(-inf) is 0
    M = 0
    pieces = ssm.A.shape[-1]  # one rate for all of n, or n rates
    for A, B, C in zip(ssm.A.unbind(-1), ssm.B.chunk(pieces, -1), ssm.C.chunk(pieces, -1)):
        matches = torch.einsum("blhn,bshn->bhls", C[:, rows], B)
        M = M + matches[:, :, None] * torch.exp(A[:, :, None, None] * elapsed)
    return M * rearrange(ssm.dt, "b s h p -> b h p 1 s")
