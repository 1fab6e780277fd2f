"""The adapter that lets one invocation of a shared block differ from the others."""

from collections.abc import Mapping

from torch import Tensor, nn

from zamba_lab.blocks.linear import Linear
from zamba_lab.trace import OFF


class Lora(nn.Module):
    """A rank-r correction to a shared matrix: up(down(x)), no bias and no alpha / rank factor, as released.

    It has LoRA's shape but is part of the base model and trained with it (Glorioso et al. 2024, section on Zamba2's
    architecture), so neither matrix starts at zero.
    """

    def __init__(self, d_in: int, rank: int, d_out: int):
        super().__init__()
        self.down = Linear(d_in, rank, bias=False)
        self.up = Linear(rank, d_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x))


Adapters = Mapping[str, Lora]  # an nn.ModuleDict, which knows no type of its values


def adapted(linear: nn.Module, adapters: Adapters, name: str, x: Tensor, trace=OFF) -> Tensor:
    """linear(x), plus what this invocation's adapter of that name adds, if it has one. (b, l, in) -> (b, l, out)"""
    y = linear(x)
    return y + trace(f"lora.{name}", adapters[name](x)) if name in adapters else y
