"""What decoding carries from token to token, as a value: extending it makes a new one, the old one stays usable.

A depth carries the inputs its convolution still needs and its SSM state, both of constant size; a hybrid depth
carries besides the keys and values of its own invocation. A shared block's *weights* are shared, its KV never is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


class Room:
    """Keys and values of one depth in buffers longer than they are, so that a token is appended without a copy.

    Several caches may look at one Room, each at its first positions. The first `taken` positions belong to some cache
    and never change; one that ends there may take the next, any other has to copy. So appending is no change of a
    value that anybody holds.
    """

    def __init__(self, k: Tensor, v: Tensor, taken: int):
        self.k, self.v, self.taken = k, v, taken  # (b, attn_kv_heads, room, attn_head_dim)

    def begins(self, layer: LayerCache) -> bool:
        """Whether the layer's keys and values still are the beginning of these, and no others put in their place."""
        return all(
            t is not None and t.data_ptr() == whole.data_ptr() and t.stride() == whole.stride() and len(t) == len(whole)
            for t, whole in ((layer.k, self.k), (layer.v, self.v))
        )


@dataclass(frozen=True)
class LayerCache:
    """The part of one depth. An absent part is None.

    conv: (b, d_conv - 1, channels) last inputs of the convolution; ssm: (b, h, p, n), float32 or wider;
    k, v: (b, attn_kv_heads, s, attn_head_dim), k after rotation; room: the buffers they are the beginning of, if any.
    """

    conv: Tensor | None = None
    ssm: Tensor | None = None
    k: Tensor | None = None
    v: Tensor | None = None
    room: Room | None = None

    def tensors(self) -> dict[str, Tensor]:
        return {name: t for name in ("conv", "ssm", "k", "v") if (t := getattr(self, name)) is not None}

    def count_positions(self, b: int, heads: int, width: int) -> int:
        """How many positions keys and values hold. Raises ValueError unless they have these sizes."""
        if self.k is None or self.v is None:
            return 0
        shape = (b, heads, self.k.shape[2], width)
        if self.k.shape != shape or self.v.shape != shape:
            raise ValueError(
                f"keys and values to go on from must have shape (batch, heads, positions, width) = {shape}, as this "
                f"layer and batch need it: got {tuple(self.k.shape)} and {tuple(self.v.shape)}"
            )
        return shape[2]

    def take_positions(self, count: int, b: int, heads: int, width: int, like: Tensor, expected: int = 0) -> tuple[Room, int]:
        """Buffers that hold this value's keys and values and `count` positions after them, now the caller's to write.

        Returns them and the number of positions with the new ones. They have `like`'s type, whatever is carried. expected: how
        many positions there will be soon, if that is known: new buffers have room for them. Raises ValueError if keys or values
        are of another batch, number of heads or width.
        """
        past = self.count_positions(b, heads, width)
        room, s = self.room, past + count
        if not (room and room.taken == past and s <= room.k.shape[2] and room.k.dtype == like.dtype and room.begins(self)):
            k, v = (like.new_empty(b, heads, max(s, expected) + max(64, past // 4), width) for _ in range(2))
            if self.k is not None and self.v is not None:
                k[:, :, :past], v[:, :, :past] = self.k, self.v
            room = Room(k, v, past)
        room.taken = s
        return room, s

    def with_kv(self, k: Tensor, v: Tensor, expected: int = 0) -> LayerCache:
        """This value's keys and values and new ones after them, (b, heads, l, width) each: without a copy of the old ones
        where there is room behind them and no gradient to remember. Nothing but keys and values comes out."""
        b, heads, l, width = k.shape
        alone = self.k is None and expected <= k.shape[2]
        # torch forbids writing to what was made in inference mode from outside of it
        closed = self.room is not None and self.room.k.is_inference() and not torch.is_inference_mode_enabled()
        if alone or closed or torch.is_grad_enabled() or torch.compiler.is_compiling():
            if self.k is not None and self.v is not None:
                self.count_positions(b, heads, width)
                k, v = torch.cat([self.k.to(k.dtype), k], dim=2), torch.cat([self.v.to(v.dtype), v], dim=2)
            return LayerCache(k=k, v=v)
        room, s = self.take_positions(l, b, heads, width, k, expected)
        room.k[:, :, s - l : s], room.v[:, :, s - l : s] = k, v
        return LayerCache(k=room.k.narrow(2, 0, s), v=room.v.narrow(2, 0, s), room=room)

    def map(self, function: Callable[[Tensor], Tensor]) -> LayerCache:
        conv, ssm, k, v = (None if t is None else function(t) for t in (self.conv, self.ssm, self.k, self.v))
        return LayerCache(conv, ssm, k, v)


@dataclass(frozen=True)
class Cache:
    """The whole model's. `layers[i]` is depth i; `length` counts positions held, padding included.

    mask: (b, length) bool, False at padding; None if there never was padding.
    """

    layers: tuple[LayerCache, ...]
    length: int
    batch: int
    mask: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of every tensor held, without the room behind keys and values."""
        return sum(t.nbytes for layer in self.layers for t in layer.tensors().values()) + (0 if self.mask is None else self.mask.nbytes)

    def map(self, function: Callable[[Tensor], Tensor]) -> Cache:
        """The cache with `function` applied to each tensor that has the batch first: `cache.map(lambda t: t[:1])`."""
        layers = tuple(layer.map(function) for layer in self.layers)
        mask = None if self.mask is None else function(self.mask)
        batch = next((len(t) for layer in layers for t in layer.tensors().values()), self.batch)
        return Cache(layers, self.length, batch, mask)

    def clone(self) -> Cache:
        """A copy that shares no memory with this one."""
        return self.map(lambda t: t.clone())
