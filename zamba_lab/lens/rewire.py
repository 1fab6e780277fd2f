"""Another structure from the same weights: which block runs where, and with whose adapters.

A rewired model is a `Zamba` of its own that shares every parameter with the first: it has the config of what it now is, it
can be saved, and what is trained in one is trained in both (but for the copies that `untie` makes).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor, nn

from zamba_lab.blocks import Context
from zamba_lab.cache import LayerCache
from zamba_lab.config import ZambaConfig
from zamba_lab.lens.interventions import Intervention
from zamba_lab.lens.parts import adapters
from zamba_lab.model import Zamba
from zamba_lab.trace import OFF


@dataclass(frozen=True, eq=False)
class Rewire(Intervention):
    """An intervention on the structure: it shows in what each invocation adds to its mixer's input."""

    what: str
    rewired: Callable[[Zamba], Zamba]
    must: Callable[[ZambaConfig], None] = lambda config: None  # raises ValueError if the config lacks what it needs

    @property
    def name(self) -> str:
        return self.what

    def outlets(self, config: ZambaConfig) -> tuple[str, ...]:
        return tuple(f"invocation.{k}.link_out" for k in range(config.n_invocations))

    def check(self, model: Zamba) -> None:
        if not model.config.n_invocations:
            raise ValueError(f"{self.what}: the model has no shared block (n_shared_blocks 0)")
        self.must(model.config)

    def rewire(self, model: Zamba) -> Zamba:
        return self.rewired(model)


def swap_blocks(first: int = 0, second: int = 1) -> Rewire:
    """Block `first` runs wherever `second` did, and the other way round: ABAB becomes BABA."""

    def swapped(model: Zamba) -> Zamba:
        other = {first: second, second: first}
        return view(model, shared_blocks=(model.shared_blocks[other.get(i, i)] for i in range(len(model.shared_blocks))))

    return Rewire(f"blocks {first} and {second} swapped", swapped, partial(must_have, blocks=(first, second)))


def one_block(block: int = 0) -> Rewire:
    """One block runs at every invocation, with that invocation's adapters and link: ABAB becomes AAAA."""

    def alone(model: Zamba) -> Zamba:
        config = replace(model.config, n_shared_blocks=1, block_order=None)
        return view(model, config, shared_blocks=[model.shared_blocks[block]])

    return Rewire(f"block {block} everywhere", alone, partial(must_have, blocks=(block,)))


def untie() -> Rewire:
    """Give each invocation a copy of its block: the same result, until a copy is changed."""

    def untied(model: Zamba) -> Zamba:
        c = model.config
        return view(
            model,
            replace(c, n_shared_blocks=c.n_invocations, block_order=None),
            shared_blocks=(copy.deepcopy(model.shared_blocks[block]) for block in c.blocks_by_invocation),
        )

    return Rewire("a copy of its block for each invocation", untied)


def permute_adapters(order: Sequence[int]) -> Rewire:
    """Invocation k runs with the adapters of invocation order[k]; block and link stay."""
    order = tuple(order)

    def permuted(model: Zamba) -> Zamba:
        layers, depths = list(model.layers), model.config.hybrid_layers
        for depth, owner in zip(depths, order):
            invocation = view(layers[depth].invocation, adapters=model.layers[depths[owner]].invocation.adapters)
            layers[depth] = view(layers[depth], invocation=invocation)
        return view(model, layers=layers)

    return Rewire(f"adapters in the order {' '.join(map(str, order))}", permuted, partial(must_permute, order=order))


class Known(nn.Module):
    """Stands for a layer, and those before it, whose stream is known. It carries nothing on."""

    def __init__(self, x: Tensor):
        super().__init__()
        self.x = x

    def forward(self, x: Tensor, block: nn.Module | None, ctx: Context, cache: LayerCache, trace=OFF) -> tuple[Tensor, LayerCache]:
        return self.x, LayerCache()


def known_until(depth: int, x: Tensor) -> Rewire:
    """The layers before `depth` need not run: the stream that enters it is x, (b, l, d), as a pass from the start gave it."""
    return Rewire(
        f"the stream before depth {depth} as it was", lambda model: view(model, layers=[*[Known(x)] * depth, *list(model.layers)[depth:]])
    )


def view(module: nn.Module, config: ZambaConfig | None = None, **children: nn.Module | Iterable[nn.Module]) -> nn.Module:
    """A module like this one, with the same parameters, but for the children (and the config) given."""
    new = copy.copy(module)
    given = {name: child if isinstance(child, nn.Module) else nn.ModuleList(child) for name, child in children.items()}
    new._modules = {**module._modules, **given}  # the copy shared the dict of the original
    if config is not None:
        new.config = config
    return new


def must_have(config: ZambaConfig, blocks: Sequence[int]) -> None:
    for block in blocks:
        if not 0 <= block < config.n_shared_blocks:
            raise ValueError(f"block must be one of the model's shared blocks: got {block}, n_shared_blocks {config.n_shared_blocks}")


def must_permute(config: ZambaConfig, order: Sequence[int]) -> None:
    if not adapters(config):
        raise ValueError("the model has no adapters to permute: lora_rank 0, lora_rank_qkv 0")
    if sorted(order) != list(range(config.n_invocations)):
        raise ValueError(f"order must name each of the {config.n_invocations} invocations once: got {order}")
