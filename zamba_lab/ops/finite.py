"""Whether a tensor holds only finite numbers."""

import torch
from torch import Tensor


def all_finite(t: Tensor) -> bool:
    """Whether no element is NaN or infinite. t: any shape of a floating-point type; empty: True."""
    # The extremes tell, NaN included, and need no second copy.
    return t.numel() == 0 or all(bool(extreme.isfinite()) for extreme in torch.aminmax(t))
