"""The adapter that lets one invocation of a shared block differ from the others."""

from torch import Tensor, nn

from zamba_lab.blocks.linear import Linear
from zamba_lab.blocks.watched import watched
from zamba_lab.ops.linear import linear_adapted
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

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        return self.up(self.down(x), add)


def adapted(linear: nn.Linear, adapters: nn.ModuleDict, name: str, x: Tensor, trace=OFF) -> Tensor:
    """linear(x), plus what this invocation's adapter of that name adds if there is one."""
    if name not in adapters:
        return linear(x)
    adapter = adapters[name]
    if trace is OFF and _plain(linear, adapter):
        return linear_adapted(x, linear.weight, linear.bias, adapter.down.weight, adapter.up.weight)
    if trace is OFF:
        return adapter(x, add=linear(x))
    return linear(x) + trace(f"lora.{name}", adapter(x))


def _plain(linear: nn.Module, adapter: nn.Module) -> bool:
    """Whether both compute what they are here to, and nobody sees their results by themselves."""
    return (
        type(linear) is Linear
        and type(adapter) is Lora
        and type(adapter.down) is type(adapter.up) is Linear
        and adapter.down.bias is adapter.up.bias is None
        and not watched(linear, adapter, adapter.down, adapter.up)
    )
