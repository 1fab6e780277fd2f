"""What a table of names (`layouts.py`) says about a config: which stored tensor is which parameter.

A row of a table is (ours, stored) or (ours, stored, transform). Names are templates:

    {i}      depth                                {home}   the stored prefix of a depth
    {k}      invocation, counted down the depth   {mixer}  the stored prefix of its mixer
    {b}      shared block                         {block}  the stored prefix of the shared block
    a | b    either name; if both are stored they must be equal

`{block}` may depend on the depth under which a block is stored: its first depth is the proper one, and copies under the
block's later depths are taken if they are equal. A tuple stands for several tensors that a transform joins or splits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from zamba_lab.checkpoints.errors import CheckpointError
from zamba_lab.checkpoints.transforms import SAME, Transform
from zamba_lab.config import ZambaConfig


@dataclass(frozen=True)
class Layout:
    """One way of naming.

    home, hybrid_home: {home} at a depth without and with an invocation. mixer: {mixer} is {home} and this word. block:
    {block}. spares: our names whose tensors are stored for every pair of block and invocation, though an invocation
    uses one block only; they are checked and dropped.
    """

    name: str
    rows: tuple[tuple, ...] = field(repr=False)
    home: str = ""
    hybrid_home: str = ""
    mixer: str = ""
    block: str = ""
    spares: tuple[str, ...] = field(default=(), repr=False)

    @property
    def by_name(self) -> dict[str, tuple]:
        return {name: row for row in self.rows for name in _several(row[0])}


@dataclass(frozen=True)
class Binding:
    """Some of our parameters and the stored tensors that are the same numbers.

    stored[j] lists the names that the j-th stored tensor may have, the proper one first.
    """

    ours: tuple[str, ...]
    stored: tuple[tuple[str, ...], ...]
    transform: Transform


def bind(layout: Layout, config: ZambaConfig, names: Iterable[str]) -> list[Binding]:
    """Each of our parameter names in exactly one binding. CheckpointError if the layout has no name for one."""
    rows, found, done = layout.by_name, [], set()
    for name in names:
        if name in done:
            continue
        template, number = _abstract(name)
        if template not in rows:
            raise CheckpointError(f"the {layout.name} layout has no name for {name}")
        ours, stored, transform = (*rows[template], SAME)[:3]
        ours = tuple(one.format(i=number, b=number) for one in _several(ours))
        places = _places(layout, config, template, number)
        found.append(Binding(ours, tuple(_names(one, places) for one in _several(stored)), transform))
        done.update(ours)
    # A name that is some tensor's own is nobody's copy: an untied head next to the embedding.
    own = {one[0] for binding in found for one in binding.stored}
    return [replace(b, stored=tuple((first, *(n for n in rest if n not in own)) for first, *rest in b.stored)) for b in found]


def spare_names(layout: Layout, config: ZambaConfig) -> dict[str, str]:
    """Stored names of adapters that no invocation uses -> our name of one of the same shape."""
    found = {}
    for k, (i, used) in enumerate(zip(config.hybrid_layers, config.blocks_by_invocation)):
        for ours in layout.spares:
            for b in set(range(config.n_shared_blocks)) - {used}:
                stored = layout.by_name[ours][1].format(i=i, k=k, b=b, block=layout.block.format(b=b, i=i))
                found[stored] = ours.format(i=i)
    return found


def _abstract(name: str) -> tuple[str, int | None]:
    """layers.12.norm.weight -> layers.{i}.norm.weight, 12"""
    match = re.match(r"(layers|shared_blocks)\.(\d+)\.(.*)", name)
    if match is None:
        return name, None
    kind, number, rest = match.groups()
    return f"{kind}.{'{i}' if kind == 'layers' else '{b}'}.{rest}", int(number)


def _places(layout: Layout, config: ZambaConfig, template: str, number: int | None) -> list[Mapping]:
    """What to put into the stored template: once, or for a shared block's tensors once for each depth that uses it."""
    order, depths = config.blocks_by_invocation, config.hybrid_layers
    if template.startswith("layers.{i}"):
        hybrid = number in depths
        home = (layout.hybrid_home if hybrid else layout.home).format(i=number)
        place = {"i": number, "home": home, "mixer": f"{home}.{layout.mixer}"}
        if not hybrid:
            return [place]
        place["k"] = depths.index(number)
        place["b"] = order[place["k"]]
    elif template.startswith("shared_blocks.{b}"):
        place = {"b": number}
    else:
        return [{}]
    users = [i for i, b in zip(depths, order) if b == place["b"]]
    return [{**place, "block": layout.block.format(b=place["b"], i=user)} for user in users]


def _names(template: str, places: list[Mapping]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(one.format(**place) for place in places for one in template.split(" | ")))


def _several(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def stored_shapes(binding: Binding, parameters: Mapping[str, Tensor], config: ZambaConfig) -> list[tuple[int, ...]]:
    """The shape of each of a binding's stored tensors, from the shapes of ours (meta tensors will do)."""
    ours = [parameters[name].detach().to("meta") for name in binding.ours]
    return [tuple(t.shape) for t in binding.transform.to_stored(ours, config)]
