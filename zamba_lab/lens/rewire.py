"""Another structure from the same weights: which block runs where, and with whose adapters.

A rewired model is a `Zamba` of its own that shares every parameter with the first: it has the config of what it now is, it
can be saved, and what is trained in one is trained in both (but for the copies that `untie` makes).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from zamba_lab.config import ZambaConfig
from zamba_lab.lens.interventions import Intervention
from zamba_lab.lens.parts import adapters
from zamba_lab.model import Zamba


@dataclass(frozen=True, eq=False)
class Rewire(Intervention):
    """An intervention on the structure: it shows in what each invocation adds to its mixer's input."""

    def outlets(self, config: ZambaConfig) -> tuple[str, ...]:
        return tuple(f"invocation.{k}.link_out" for k in range(config.n_invocations))

    def check(self, model: Zamba) -> None:
        if not model.config.n_invocations:
            raise ValueError(f"{self.name}: the model has no shared block (n_shared_blocks 0)")


@dataclass(frozen=True, eq=False)
class SwapBlocks(Rewire):
    first: int
    second: int

    @property
    def name(self) -> str:
        return f"blocks {self.first} and {self.second} swapped"

    def check(self, model: Zamba) -> None:
        super().check(model)
        must_have(model.config, self.first, self.second)

    def rewire(self, model: Zamba) -> Zamba:
        blocks = list(model.shared_blocks)
        blocks[self.first], blocks[self.second] = blocks[self.second], blocks[self.first]
        return view(model, shared_blocks=nn.ModuleList(blocks))


@dataclass(frozen=True, eq=False)
class OneBlock(Rewire):
    block: int

    @property
    def name(self) -> str:
        return f"block {self.block} everywhere"

    def check(self, model: Zamba) -> None:
        super().check(model)
        must_have(model.config, self.block)

    def rewire(self, model: Zamba) -> Zamba:
        config = replace(model.config, n_shared_blocks=1, block_order=None)
        return view(model, config, shared_blocks=nn.ModuleList([model.shared_blocks[self.block]]))


@dataclass(frozen=True, eq=False)
class Untie(Rewire):
    @property
    def name(self) -> str:
        return "a copy of its block for each invocation"

    def rewire(self, model: Zamba) -> Zamba:
        c = model.config
        copies = nn.ModuleList(copy.deepcopy(model.shared_blocks[block]) for block in c.blocks_by_invocation)
        return view(model, replace(c, n_shared_blocks=c.n_invocations, block_order=None), shared_blocks=copies)


@dataclass(frozen=True, eq=False)
class PermuteAdapters(Rewire):
    order: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"adapters in the order {' '.join(map(str, self.order))}"

    def check(self, model: Zamba) -> None:
        super().check(model)
        c = model.config
        if not adapters(c):
            raise ValueError("the model has no adapters to permute: lora_rank 0, lora_rank_qkv 0")
        if sorted(self.order) != list(range(c.n_invocations)):
            raise ValueError(f"order must name each of the {c.n_invocations} invocations once: got {self.order}")

    def rewire(self, model: Zamba) -> Zamba:
        layers = list(model.layers)
        depths = model.config.hybrid_layers
        for depth, owner in zip(depths, self.order):
            invocation = view(layers[depth].invocation, adapters=model.layers[depths[owner]].invocation.adapters)
            layers[depth] = view(layers[depth], invocation=invocation)
        return view(model, layers=nn.ModuleList(layers))


def view(module: nn.Module, config: ZambaConfig | None = None, **children: nn.Module) -> nn.Module:
    """A module like this one, with the same parameters, but for the children (and the config) given."""
    new = copy.copy(module)
    new._modules = {**module._modules, **children}           # the copy shared the dict of the original
    if config is not None:
        new.config = config
    return new


def must_have(config: ZambaConfig, *blocks: int) -> None:
    for block in blocks:
        if not 0 <= block < config.n_shared_blocks:
            raise ValueError(f"block must be one of the model's shared blocks: got {block}, n_shared_blocks "
                             f"{config.n_shared_blocks}")


def swap_blocks(first: int = 0, second: int = 1) -> SwapBlocks:
    """Block `first` runs wherever `second` did, and the other way round: ABAB becomes BABA."""
    return SwapBlocks(first, second)


def one_block(block: int = 0) -> OneBlock:
    """One block runs at every invocation, with that invocation's adapters and link: ABAB becomes AAAA."""
    return OneBlock(block)


def untie() -> Untie:
    """Give each invocation a copy of its block: the same result, until a copy is changed."""
    return Untie()


def permute_adapters(order: Sequence[int]) -> PermuteAdapters:
    """Invocation k runs with the adapters of invocation order[k]; block and link stay."""
    return PermuteAdapters(tuple(order))
