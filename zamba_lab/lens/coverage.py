"""How much of a mixer's answer its frozen form has: its steering held, against the whole derivative.

A mixer matrix and an attribution hold what steers a mixer as it was: step sizes, B, C, gates, slopes and the norm's statistics
(`mixers`). A change of the input changes those as well. Let J be the Jacobian of a mixer's output by its input, T the frozen one:

    cosine = <J, T> / |J| |T|        difference = |J - T| / |J|          over all tokens and channels, in the Frobenius norm

Both are estimated by random directions v of the output: the mean of <J^T v, T^T v> is <J, T> (Hutchinson 1989). With a cosine of 1
and a difference of 0 the view is all there is; the further from it, the more of the mixer's answer goes through its steering.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from zamba_lab.lens.mixers import mixer_matrix
from zamba_lab.model import Zamba
from zamba_lab.trace import Trace


@dataclass(frozen=True)
class Coverage:
    """Of one layer's mixer on a text."""

    depth: int
    cosine: float
    difference: float

    def __str__(self) -> str:
        return f"layer {self.depth}: cosine {self.cosine:.2f} to the whole derivative, difference {self.difference:.2f} of it"


def coverage(model: Zamba, ids: Tensor, depth: int, mask: Tensor | None = None, probes: int = 4, seed: int = 0) -> Coverage:
    """How far the mixer matrix of one layer is from the mixer's whole derivative at this text.

    Args:
        ids: (b, l). mask: (b, l), see `passes`; what is padding is left out.
        depth: the layer, 0 <= depth < n_layers. probes: random directions, each one backward pass through either form.

    Raises ValueError as `mixer_matrix`.
    """
    matrix = mixer_matrix(model, ids, depth, mask)
    generator = torch.Generator().manual_seed(seed)
    both = torch.zeros((), dtype=torch.float64)
    whole, frozen = both.clone(), both.clone()
    with torch.enable_grad():
        u = matrix.u.detach().to(next(model.parameters()).dtype).requires_grad_()
        out: list[Tensor] = []
        point = f"layers.{depth}.mamba"
        trace = Trace(edit={f"{point}.input": lambda _: u, f"{point}.out": lambda y: out.append(y) or y})
        model(ids, mask, trace)
        held = matrix.apply(u)
        for _ in range(probes):
            v = torch.randn(u.shape, generator=generator, dtype=torch.float64).to(u)
            v = v if mask is None else v * mask[..., None]
            true, view = (torch.autograd.grad(each, u, v.to(each), retain_graph=True)[0].double().cpu() for each in (out[0], held))
            both, whole, frozen = both + (true * view).sum(), whole + true.square().sum(), frozen + view.square().sum()
    return Coverage(depth, float(both / (whole * frozen).sqrt()), float(((whole - 2 * both + frozen) / whole).clamp(min=0).sqrt()))
