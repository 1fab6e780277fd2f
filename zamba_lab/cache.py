"""What decoding carries from token to token, as a value: extending it makes a new one, the old one stays usable.

A depth carries the inputs its convolution still needs and its SSM state, both of constant size; a hybrid depth
carries besides the keys and values of its own invocation. A shared block's *weights* are shared, its KV never is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


class Room:
    """Keys and values of one depth in buffers longer than they are, so that a token is appended without a copy.

    Several caches may look at one Room, each at its first positions. The first `taken` positions belong to some cache
    and never change; one that ends there may take the next, any other has to copy. So appending is no change of a
    value that anybody holds.
    """

    def __init__(self, k: Tensor, v: Tensor, taken: int):
        self.k, self.v, self.taken = k, v, taken            # (b, attn_kv_heads, room, attn_head_dim)


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

    def take_position(self, b: int, heads: int, width: int, like: Tensor) -> tuple[Room, int]:
        """Buffers that hold this value's keys and values and a position after them, which is now the caller's to write.

        Returns them and the number of positions with the new one. `like` has their type, if there are none yet.
        """
        s = 0 if self.k is None else self.k.shape[2]
        room = self.room
        if room is None or room.taken != s or s == room.k.shape[2]:
            k, v = (like.new_empty(b, heads, s + 1 + max(64, s // 4), width) for _ in range(2))
            if s:
                k[:, :, :s], v[:, :, :s] = self.k, self.v
            room = Room(k, v, s)
        room.taken = s + 1
        return room, s + 1

    def map(self, function: Callable[[Tensor], Tensor]) -> LayerCache:
        return LayerCache(**{name: function(t) for name, t in self.tensors().items()})


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
        return sum(t.nbytes for layer in self.layers for t in layer.tensors().values()) \
            + (0 if self.mask is None else self.mask.nbytes)

    def map(self, function: Callable[[Tensor], Tensor]) -> Cache:
        """The cache with `function` applied to each tensor that has the batch first: `cache.map(lambda t: t[:1])`."""
        layers = tuple(layer.map(function) for layer in self.layers)
        mask = None if self.mask is None else function(self.mask)
        batch = next((len(t) for layer in layers for t in layer.tensors().values()), self.batch)
        return Cache(layers, self.length, batch, mask)

    def clone(self) -> Cache:
        """A copy that shares no memory with this one."""
        return self.map(lambda t: t.clone())
