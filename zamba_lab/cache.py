"""What decoding carries from token to token, as a value: extending it makes a new one, the old one stays usable.

A depth carries the inputs its convolution still needs and its SSM state, both of constant size; a hybrid depth
carries besides the keys and values of its own invocation. A shared block's *weights* are shared, its KV never is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

from torch import Tensor


@dataclass(frozen=True)
class LayerCache:
    """The part of one depth. An absent part is None.

    conv: (b, d_conv - 1, channels) last inputs of the convolution; ssm: (b, h, p, n), float32 or wider;
    k, v: (b, attn_kv_heads, s, attn_head_dim), k after rotation.
    """

    conv: Tensor | None = None
    ssm: Tensor | None = None
    k: Tensor | None = None
    v: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        return {f.name: t for f in fields(self) if (t := getattr(self, f.name)) is not None}

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
        """Bytes of every tensor held."""
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
