"""What a table of names (`layouts.py`) says about a config: which stored tensor is which parameter, and how it differs.

A row of a table is (ours, stored) or (ours, stored, transform). Names are templates:

    {i}      depth                                {home}   the stored prefix of a depth
    {k}      invocation, counted down the depth   {mixer}  the stored prefix of its mixer
    {b}      shared block                         {block}  the stored prefix of the shared block
    a | b    either name; if both are stored they must be equal

`{block}` may depend on the depth under which a block is stored: its first depth is the proper one, and copies under the
block's later depths are allowed if they are equal. A tuple stands for several tensors that a transform joins or splits.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from einops import rearrange
from torch import Tensor

from zamba_lab.checkpoints.errors import CheckpointError
from zamba_lab.config import ZambaConfig

# --- how stored tensors differ from ours where they do: pairs of exact inverses, on rows and axes only -----------------
# Each takes and returns lists, since a stored tensor may hold several of ours or the other way round. They work on meta
# tensors too, which is how stored shapes are known before anything is read.

Change = Callable[[list[Tensor], ZambaConfig], list[Tensor]]


@dataclass(frozen=True)
class Transform:
    """to_ours(stored tensors, config) and to_stored(our tensors, config) undo each other."""

    to_ours: Change
    to_stored: Change


def _each(pattern: str, **sizes) -> Change:
    return lambda tensors, config: [rearrange(t, pattern, **sizes) for t in tensors]


def _as_is(tensors: list[Tensor], config: ZambaConfig) -> list[Tensor]:
    return tensors


SAME = Transform(_as_is, _as_is)

# A depthwise convolution's weight carries an axis of one input channel per group.
CONV = Transform(_each("e 1 w -> e w"), _each("e w -> e 1 w"))

# Zamba1's in_proj: rows x_0, z_0, x_1, z_1, ...; ours is all of x, then all of z.
INTERLEAVED = Transform(_each("(e two) ... -> (two e) ...", two=2), _each("(two e) ... -> (e two) ...", two=2))

# Two matrices that are one of ours, one above the other: Zamba1's gate_proj and up_proj.
STACKED = Transform(lambda tensors, config: [torch.cat(tensors)], lambda tensors, config: list(tensors[0].chunk(2)))

# Mamba-1 with a single head and no axis for it.
ONE_HEAD = Transform(_each("... -> 1 ..."), _each("1 ... -> ..."))


# One matrix for q, k and v, head by head: rows q_0, k_0, v_0, q_1, ..., each of head_dim rows.
def _split_qkv(tensors: list[Tensor], config: ZambaConfig) -> list[Tensor]:
    return list(rearrange(tensors[0], "(h three p) d -> three (h p) d", three=3, p=config.head_dim))


def _join_qkv(tensors: list[Tensor], config: ZambaConfig) -> list[Tensor]:
    if config.kv_heads != config.attn_heads:
        raise CheckpointError(
            "a layout that stores q, k and v as one matrix has as many key heads as query heads: got "
            f"{config.kv_heads} and {config.attn_heads}"
        )
    return [rearrange(tensors, "three (h p) d -> (h three p) d", p=config.head_dim)]


QKV_BY_HEAD = Transform(_split_qkv, _join_qkv)


# --- names -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layout:
    """One way of naming.

    home, hybrid_home: {home} at a depth without and with an invocation, where that differs. mixer: {mixer} is {home} and this word. block:
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
    rows, bindings, done = layout.by_name, [], set()
    for name in names:
        if name in done:
            continue
        template, number = _abstract(name)
        if template not in rows:
            raise CheckpointError(f"the {layout.name} layout has no name for {name}")
        ours, stored, transform = (*rows[template], SAME)[:3]
        ours = tuple(ours_template.format(i=number, b=number) for ours_template in _several(ours))
        values = _values(layout, config, template, number)
        bindings.append(Binding(ours, tuple(_names(stored_template, values) for stored_template in _several(stored)), transform))
        done.update(ours)
    # A name that is some tensor's own is nobody's copy: an untied head next to the embedding.
    own = {names[0] for binding in bindings for names in binding.stored}
    return [replace(b, stored=tuple((first, *(n for n in rest if n not in own)) for first, *rest in b.stored)) for b in bindings]


def spare_names(layout: Layout, config: ZambaConfig) -> dict[str, str]:
    """Stored names of adapters that no invocation uses -> our name of one of the same shape."""
    spares = {}
    for k, (i, used) in enumerate(zip(config.hybrid_layers, config.blocks_by_invocation)):
        for ours in layout.spares:
            for b in set(range(config.n_shared_blocks)) - {used}:
                stored = layout.by_name[ours][1].format(i=i, k=k, b=b, block=layout.block.format(b=b, i=i))
                spares[stored] = ours.format(i=i)
    return spares


def _abstract(name: str) -> tuple[str, int | None]:
    """layers.12.norm.weight -> layers.{i}.norm.weight, 12"""
    match = re.match(r"(layers|shared_blocks)\.(\d+)\.(.*)", name)
    if match is None:
        return name, None
    kind, number, rest = match.groups()
    return f"{kind}.{'{i}' if kind == 'layers' else '{b}'}.{rest}", int(number)


def _values(layout: Layout, config: ZambaConfig, template: str, number: int | None) -> list[Mapping]:
    """What to put into a stored template: one mapping, or for a shared block's tensors one for each depth of its invocations."""
    order, depths = config.blocks_by_invocation, config.hybrid_layers
    if template.startswith("layers.{i}"):
        hybrid = number in depths
        home = (hybrid and layout.hybrid_home or layout.home).format(i=number)
        value = {"i": number, "home": home, "mixer": f"{home}.{layout.mixer}"}
        if not hybrid:
            return [value]
        value["k"] = depths.index(number)
        value["b"] = order[value["k"]]
    elif template.startswith("shared_blocks.{b}"):
        value = {"b": number}
    else:
        return [{}]
    invoked_at = [i for i, b in zip(depths, order) if b == value["b"]]
    return [{**value, "block": layout.block.format(b=value["b"], i=i)} for i in invoked_at]


def _names(template: str, values: list[Mapping]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.format(**value) for value in values for name in template.split(" | ")))


def _several(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def stored_shapes(binding: Binding, parameters: Mapping[str, Tensor], config: ZambaConfig) -> list[tuple[int, ...]]:
    """The shape of each of a binding's stored tensors, from the shapes of ours (meta tensors will do)."""
    ours = [parameters[name].detach().to("meta") for name in binding.ours]
    return [tuple(t.shape) for t in binding.transform.to_stored(ours, config)]
