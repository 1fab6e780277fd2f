"""Decoding without Python's share: the first token's native calls are recorded, the next tokens play them.

A small model's token is less work than the Python around it. Nothing is written twice for that: what is played is what
the layers' own `forward` did, and where the layers are no longer those that were recorded (another module, a weight that
was replaced, an attribute that was set, a hook), they are recorded anew. Weights that only change their values are read
as they are. Where not all of a token's work is native, `forward` simply runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules import module as every_module

from zamba_lab.blocks.context import Context
from zamba_lab.cache import Cache, LayerCache
from zamba_lab.native import direct, memory
from zamba_lab.native.tape import Calls, NotTaped, Tape

Walk = Callable[[Context, Cache], tuple[Tensor, list[LayerCache]]]


def one_token(model: nn.Module, walk: Walk, ctx: Context, cache: Cache) -> tuple[Tensor, list[LayerCache]]:
    """What `walk(ctx, cache)` gives, the logits and each layer's cache, walked or played.

    ctx.step must be true: one token, and nobody looks. The walk must depend on nothing but `model`, ctx and cache.
    """
    takes = _TAKES.get(model)
    if takes is None or takes.fingerprint != takes.fingerprint_now():
        takes = _TAKES[model] = _Takes(model)
    if takes.hooked:
        return walk(ctx, cache)
    kind = (
        ctx.x0.shape,
        ctx.x0.dtype,
        ctx.turn is None,
        ctx.visible is None,
        torch.get_num_threads(),
        tuple((layer.conv is None, layer.ssm is None, layer.k is None) for layer in cache.layers),
    )
    if kind not in takes.by_kind:
        with direct.recorded() as calls:
            logits, layers = walk(ctx, cache)
        take = take_of(calls, model, ctx, cache, logits, layers)
        if take or all(map(_settled, cache.layers, layers)):
            takes.by_kind[kind] = take
        return logits, layers
    take = takes.by_kind[kind]
    return take and take.play(ctx, cache) or walk(ctx, cache)


class _Takes:
    """The takes of one model as it is, by kind of token, and a fingerprint to tell whether it still is so."""

    def __init__(self, model: nn.Module):
        self.by_kind: dict[tuple, _Take | None] = {}
        modules = [one.__dict__ for one in model.modules()]
        inner = [one[name] for one in modules for name in ("_parameters", "_buffers", "_modules")]
        self._dicts = modules + inner
        self._places = [(one, name) for one in modules for name in one if not name.startswith("_")]
        self._places += [(one, name) for one in inner for name in one]
        self._held = [one[name] for one, name in self._places]  # so that nothing else is given their ids
        self._tensors = [*model.parameters(), *model.buffers()]
        hooks = [one[name] for one in modules for name in ("_forward_hooks", "_forward_pre_hooks")]
        self._hooks = [*hooks, every_module._global_forward_hooks, every_module._global_forward_pre_hooks]
        self.fingerprint = self.fingerprint_now()
        self.hooked = any(self._hooks)

    def fingerprint_now(self) -> tuple:
        """Which modules, weights and attributes there are, where the weights lie, and whether there are hooks."""
        return (
            [id(one.get(name)) for one, name in self._places],
            list(map(len, self._dicts)),
            [t.data_ptr() for t in self._tensors],
            any(self._hooks),
        )


# Not kept in the model: its copy has other weights. And not keeping the model: no take refers to it.
_TAKES: WeakKeyDictionary[nn.Module, _Takes] = WeakKeyDictionary()


class _Part(NamedTuple):
    """What one layer's cache looks like: shape and type of conv and ssm, and batch, heads and width of KV. None: absent.

    KV are of the stream's type.
    """

    conv: tuple[torch.Size, torch.dtype] | None
    ssm: tuple[torch.Size, torch.dtype] | None
    kv: tuple[int, int, int] | None


def take_of(calls: Calls, model: nn.Module, ctx: Context, cache: Cache, logits: Tensor, layers: list[LayerCache]) -> _Take | None:
    """The calls of a token from ctx and cache to logits and layers, on tape; None if not all of its work was native."""
    into, out, rooms, parts = _inputs(ctx), [logits], [], []
    for old, new in zip(cache.layers, layers):
        mixer, kv = old.conv is not None and old.ssm is not None, None
        if mixer:
            into += [old.conv, old.ssm]
            out += [new.conv, new.ssm]
        if new.room is not None:
            rooms.append(new.room)
            into += [new.room.k, new.room.v]
            kv = _sizes(new.k)
        parts.append(_Part(_looks(old.conv) if mixer else None, _looks(old.ssm) if mixer else None, kv))
    first = len(into) + len(out)
    numbers = {room.k.data_ptr(): {"l": first + 2 * k, "r": first + 2 * k + 1} for k, room in enumerate(rooms)}
    try:
        tape = Tape(calls, into, out, numbers, [*model.parameters(), *model.buffers()])
    except NotTaped:
        return None
    return _Take(tape, logits.shape, tuple(parts))


def _inputs(ctx: Context) -> list[Tensor]:
    return [t for t in (ctx.x0, *(ctx.turn or ()), ctx.visible) if t is not None]


class _Take(NamedTuple):
    """A token's calls on tape, and what has to be prepared for playing them."""

    tape: Tape
    logits: torch.Size
    parts: tuple[_Part, ...]

    def play(self, ctx: Context, cache: Cache) -> tuple[Tensor, list[LayerCache]] | None:
        """None, and nothing is done, if the cache is not laid out as the tape needs it, or another thread plays."""
        if not self._fits(ctx, cache) or not self.tape.lock.acquire(blocking=False):
            return None
        try:
            return self._play(ctx, cache)
        finally:
            self.tape.lock.release()

    def _fits(self, ctx: Context, cache: Cache) -> bool:
        """Whether what goes in has the layout, shapes and types of what went in when the tape was recorded."""
        return all(map(direct.plain, _inputs(ctx))) and all(
            (part.ssm is None or (_looks(old.conv) == part.conv and _looks(old.ssm) == part.ssm))
            and (part.kv is None or old.k is None or (old.k.dtype == ctx.x0.dtype and _sizes(old.k) == _sizes(old.v) == part.kv))
            for old, part in zip(cache.layers, self.parts)
        )

    def _play(self, ctx: Context, cache: Cache) -> tuple[Tensor, list[LayerCache]]:
        into, logits = [t.data_ptr() for t in _inputs(ctx)], ctx.x0.new_empty(self.logits)
        out, numbers, layers = [logits.data_ptr()], [], []
        for old, part in zip(cache.layers, self.parts):
            conv = ssm = k = v = room = None
            if part.ssm is not None:
                conv, ssm = torch.empty_like(old.conv), memory.empty(old.ssm, *old.ssm.shape, huge=False)
                into += [old.conv.data_ptr(), old.ssm.data_ptr()]
                out += [conv.data_ptr(), ssm.data_ptr()]
            if part.kv is not None:
                room, s = old.take_positions(1, *part.kv, like=ctx.x0)
                k, v = room.k.narrow(2, 0, s), room.v.narrow(2, 0, s)
                into += [k.data_ptr(), v.data_ptr()]
                numbers += [s, room.k.shape[2]]
            layers.append(LayerCache(conv, ssm, k, v, room))
        self.tape.play(into + out + numbers)
        return logits, layers


def _settled(old: LayerCache, new: LayerCache) -> bool:
    """Whether the token found what it leaves: a cache of another type is converted once, then tokens are as ever."""
    same = all(a is None or _looks(a) == _looks(b) for a, b in ((old.conv, new.conv), (old.ssm, new.ssm)))
    return same and (old.k is None or new.k is None or old.k.dtype == new.k.dtype)


def _looks(t: Tensor | None) -> tuple[torch.Size, torch.dtype] | None:
    return (t.shape, t.dtype) if t is not None and direct.plain(t) else None


def _sizes(kv: Tensor) -> tuple[int, int, int]:
    b, heads, _, width = kv.shape
    return b, heads, width
