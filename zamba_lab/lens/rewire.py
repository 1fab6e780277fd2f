"""Another structure from the same weights: which block runs where, and with whose adapters.

A rewired model is a `Zamba` of its own that shares every parameter with the first: it has the config of what it now is, it
can be saved, and what is trained in one is trained in both (but for the copies that `untie` makes).
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from torch import nn

from zamba_lab.config import ZambaConfig, block_name
from zamba_lab.lens.interventions import Rewire
from zamba_lab.lens.parts import adapters
from zamba_lab.model import Zamba

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class Rewiring(Rewire):
    """A change of blocks or adapters: it shows in what each invocation adds to its mixer's input."""

    name: str
    rewired: Callable[[Zamba], Zamba]
    require: Callable[[ZambaConfig], None] = lambda config: None  # raises ValueError if the config lacks what it needs

    def outlets(self, config: ZambaConfig) -> tuple[str, ...]:
        return tuple(f"invocation.{k}.link_out" for k in range(config.n_invocations))

    def check(self, model: Zamba) -> None:
        if not model.config.n_invocations:
            raise ValueError(f"{self.name}: the model has no shared block (n_shared_blocks 0)")
        self.require(model.config)

    def rewire(self, model: Zamba) -> Zamba:
        return self.rewired(model)


def swap_blocks(first: int = 0, second: int = 1) -> Rewiring:
    """Block `first` runs wherever `second` did, and the other way round: ABAB becomes BABA."""

    def swapped(model: Zamba) -> Zamba:
        other = {first: second, second: first}
        return view(model, shared_blocks=(model.shared_blocks[other.get(i, i)] for i in range(len(model.shared_blocks))))

    return Rewiring(
        f"blocks {block_name(first)} and {block_name(second)} swapped", swapped, partial(require_blocks, blocks=(first, second))
    )


def one_block(block: int = 0) -> Rewiring:
    """One block runs at every invocation, with that invocation's adapters and link: ABAB becomes AAAA."""

    def alone(model: Zamba) -> Zamba:
        config = replace(model.config, n_shared_blocks=1, block_order=None)
        return view(model, config, shared_blocks=[model.shared_blocks[block]])

    return Rewiring(f"block {block_name(block)} everywhere", alone, partial(require_blocks, blocks=(block,)))


def untie() -> Rewiring:
    """Give each invocation a copy of its block: the same result, until a copy is changed."""

    def untied(model: Zamba) -> Zamba:
        c = model.config
        return view(
            model,
            replace(c, n_shared_blocks=c.n_invocations, block_order=None),
            shared_blocks=(copy.deepcopy(model.shared_blocks[block]) for block in c.blocks_by_invocation),
        )

    return Rewiring("a copy of its block for each invocation", untied)


def permute_adapters(order: Sequence[int]) -> Rewiring:
    """Invocation k runs with the adapters of invocation order[k]; block and link stay."""
    order = tuple(order)

    def permuted(model: Zamba) -> Zamba:
        layers, depths = list(model.layers), model.config.hybrid_layers
        for depth, owner in zip(depths, order):
            invocation = view(layers[depth].invocation, adapters=model.layers[depths[owner]].invocation.adapters)
            layers[depth] = view(layers[depth], invocation=invocation)
        return view(model, layers=layers)

    return Rewiring(f"adapters in the order {' '.join(map(str, order))}", permuted, partial(require_order, order=order))


def lend(depth: int, owner: int) -> Rewiring:
    """The invocation at the hybrid layer `depth` runs with the adapters and the link of the one at `owner`."""

    def lent(model: Zamba) -> Zamba:
        layers = list(model.layers)
        layers[depth] = view(layers[depth], invocation=layers[owner].invocation)
        return view(model, layers=layers)

    return Rewiring(f"layer {depth} with the adapters and link of layer {owner}", lent)


def view(module: M, config: ZambaConfig | None = None, **children: Any) -> M:
    """A module like this one, with the same parameters, but for the config and the children given: modules, or series of them."""
    new = copy.copy(module)
    modules = {name: child if isinstance(child, nn.Module) else nn.ModuleList(child) for name, child in children.items()}
    new._modules = {**module._modules, **modules}  # the copy shared the dict of the original
    if config is not None:
        vars(new)["config"] = config
    return new


def require_blocks(config: ZambaConfig, blocks: Sequence[int]) -> None:
    for block in blocks:
        if not 0 <= block < config.n_shared_blocks:
            raise ValueError(f"block must be one of the model's shared blocks: got {block}, n_shared_blocks {config.n_shared_blocks}")


def require_order(config: ZambaConfig, order: Sequence[int]) -> None:
    if not adapters(config):
        raise ValueError("the model has no adapters to permute: lora_rank 0, lora_rank_qkv 0")
    if sorted(order) != list(range(config.n_invocations)):
        raise ValueError(f"order must name each of the {config.n_invocations} invocations once: got {order}")
