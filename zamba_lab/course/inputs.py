"""Arguments for checks: float64, from a seed, of awkward sizes."""

import torch
from torch import Tensor


def draw(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Normal numbers of these shapes."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def steps(seed: int, *shape: int) -> Tensor:
    """Step sizes between 0.05 and 1.5."""
    generator = torch.Generator().manual_seed(seed)
    return 0.05 + 1.45 * torch.rand(shape, generator=generator, dtype=torch.float64)
