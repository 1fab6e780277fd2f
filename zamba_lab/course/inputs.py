"""Arguments for checks, float64, from a seed, of awkward sizes; and those of one head of a trained model."""

import torch
from torch import Tensor

from zamba_lab.lens import run
from zamba_lab.model import Zamba


def draw(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Normal numbers of these shapes."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def steps(seed: int, *shape: int) -> Tensor:
    """Step sizes between 0.05 and 1.5."""
    generator = torch.Generator().manual_seed(seed)
    return 0.05 + 1.45 * torch.rand(shape, generator=generator, dtype=torch.float64)


def head_terms(model: Zamba, ids: Tensor, depth: int, head: int) -> tuple[Tensor, ...]:
    """x, dt, A, B, C of one head at the first text of (b, l) ids, as float64.

    x: (l, p). B, C: (l, n). Mamba-2: dt (l,), A a number. Mamba-1: dt (l, p), A (p, n).
    """
    trace = run(model, ids, keep=[f"layers.{depth}.mamba.{name}" for name in ("x", "dt", "B", "C")])
    x, dt, B, C = (trace[f"layers.{depth}.mamba.{name}"][0].double() for name in ("x", "dt", "B", "C"))
    A = -torch.exp(model.layers[depth].mamba.A_log.detach().double())[head]
    group = head * B.shape[1] // x.shape[1]
    return x[:, head], dt[:, head], A if A.ndim else float(A), B[:, group], C[:, group]
