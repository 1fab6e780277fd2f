"""RMSNorm with its weight."""

import torch
from torch import Tensor, nn

from zamba_lab.ops.norm import rms_norm


class RMSNorm(nn.Module):
    """y = weight * x / rms(x) over the last axis (`ops.norm.rms_norm`)."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, self.eps)
