"""What decoding carries from token to token, as a value: extending it makes a new one, the old one stays usable.

A depth carries the inputs its convolution still needs and its SSM state, both of constant size; a hybrid depth
carries besides the keys and values of its own invocation. A shared block's *weights* are shared, its KV never is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zamba_lab import cache_file


class KVBuffer:
    """Keys and values of one depth, longer than those in use, so that a token is appended without a copy.

    Several caches may share one, each its first positions. The first `used` positions belong to some cache and never
    change; a cache that ends there may append, any other has to copy. So appending changes no value that anybody holds.
    """

    def __init__(self, k: Tensor, v: Tensor, used: int):
        self.k, self.v, self.used = k, v, used  # (b, attn_kv_heads, length, attn_head_dim)

    def holds(self, layer: LayerCache) -> bool:
        """Whether the layer's keys and values are the beginning of these, and no others were put in their place."""
        pairs = ((layer.k, self.k), (layer.v, self.v))
        return all(
            t is not None and t.data_ptr() == buffer.data_ptr() and t.stride() == buffer.stride() and len(t) == len(buffer)
            for t, buffer in pairs
        )

    def can_append(self, layer: LayerCache, like: Tensor, length: int) -> bool:
        """Whether the layer's keys and values may grow here to `length` positions of like's dtype."""
        # torch forbids writing to what was made in inference mode from outside of it
        closed = self.k.is_inference() and not torch.is_inference_mode_enabled()
        fits = self.used == layer.length and length <= self.k.shape[2] and self.k.dtype == like.dtype
        return fits and not closed and self.holds(layer)


@dataclass(frozen=True)
class LayerCache:
    """The part of one depth. An absent part is None.

    conv: (b, d_conv - 1, channels) last inputs of the convolution; ssm: (b, h, p, n), float32 or wider;
    k, v: (b, attn_kv_heads, s, attn_head_dim), k after rotation; buffer: what they are the beginning of, if anything.
    """

    conv: Tensor | None = None
    ssm: Tensor | None = None
    k: Tensor | None = None
    v: Tensor | None = None
    buffer: KVBuffer | None = None

    @property
    def length(self) -> int:
        """Positions that keys and values hold."""
        return 0 if self.k is None else self.k.shape[2]

    def tensors(self) -> dict[str, Tensor]:
        return {name: t for name in ("conv", "ssm", "k", "v") if (t := getattr(self, name)) is not None}

    def with_kv(self, k: Tensor, v: Tensor, final_length: int = 0) -> LayerCache:
        """This value's keys and values and new ones after them, (b, h, l, p) each, in the new ones' dtype; no conv and no ssm.

        The old ones are not copied if their buffer has space and no gradient is to remember them. A new buffer has space for
        final_length positions and some more. Raises ValueError if the old ones are of another batch, number of heads or width.
        """
        b, heads, l, width = k.shape
        past, old_k, old_v = self.length, self.k, self.v
        if old_k is not None and old_v is not None:
            shape = (b, heads, past, width)
            if not old_k.shape == old_v.shape == shape:
                raise ValueError(
                    f"keys and values to go on from must have shape (batch, heads, positions, width) = {shape}, as this "
                    f"layer and batch need it: got {tuple(old_k.shape)} and {tuple(old_v.shape)}"
                )
        # With gradients nothing is written in place, and a prompt read in one piece needs no buffer.
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or (old_k is None and final_length <= l):
            if old_k is not None and old_v is not None:
                k, v = torch.cat([old_k.to(k.dtype), k], dim=2), torch.cat([old_v.to(v.dtype), v], dim=2)
            return LayerCache(k=k, v=v)
        buffer = self.buffer
        if buffer is None or not buffer.can_append(self, k, past + l):
            length = max(past + l, final_length) + max(64, past // 4)
            buffer = KVBuffer(k.new_empty(b, heads, length, width), k.new_empty(b, heads, length, width), past)
            if old_k is not None and old_v is not None:
                buffer.k[:, :, :past], buffer.v[:, :, :past] = old_k, old_v
        buffer.k[:, :, past : past + l], buffer.v[:, :, past : past + l] = k, v
        buffer.used = past + l
        return LayerCache(k=buffer.k.narrow(2, 0, past + l), v=buffer.v.narrow(2, 0, past + l), buffer=buffer)

    def map(self, function: Callable[[Tensor], Tensor]) -> LayerCache:
        conv, ssm, k, v = (None if t is None else function(t) for t in (self.conv, self.ssm, self.k, self.v))
        return LayerCache(conv, ssm, k, v)


class Origin:
    """The model that made a cache, for `Cache.save`. Copies of the cache have the same; a pickled cache has none."""

    def __init__(self, model: Any):
        self.model = model

    def __deepcopy__(self, memo: dict) -> Origin:
        return self

    def __reduce__(self):
        return Origin, (None,)


@dataclass(frozen=True)
class Cache:
    """The model's. `layers[i]` is depth i; `length` counts positions held, padding included.

    mask: (b, length) bool, False at padding; None if there never was padding. tokens: (b, length) ids that were read, and
    origin: the model that read them; None where they are not known, as of a compiled model.
    """

    layers: tuple[LayerCache, ...]
    length: int
    batch: int
    mask: Tensor | None = None
    tokens: Tensor | None = None
    origin: Origin | None = field(default=None, repr=False, compare=False)

    @property
    def nbytes(self) -> int:
        """Bytes of states, keys, values and mask, without the unused end of buffers; token ids are not counted."""
        return sum(t.nbytes for layer in self.layers for t in layer.tensors().values()) + (0 if self.mask is None else self.mask.nbytes)

    def map(self, function: Callable[[Tensor], Tensor]) -> Cache:
        """The cache with `function` applied to each tensor that has the batch first: `cache.map(lambda t: t[:1])`."""
        layers = tuple(layer.map(function) for layer in self.layers)
        mask = None if self.mask is None else function(self.mask)
        tokens = None if self.tokens is None else function(self.tokens).to(self.tokens.dtype)  # ids under `lambda t: t.half()`, too
        batch = next((len(t) for layer in layers for t in layer.tensors().values()), self.batch)
        return Cache(layers, self.length, batch, mask, tokens, self.origin)

    def clone(self) -> Cache:
        """A copy that shares no memory with this one."""
        return self.map(lambda t: t.clone())

    def save(self, path: str | Path, model: Any = None) -> Path:
        """Write the cache as safetensors, with hashes of the model's weights and of the tokens, its config and dtype. Returns the path.

        The weights are read for their hash as they are now: save before they are trained on. model: the one that made this
        cache; only needed where the cache does not know it. Raises ValueError there, and OSError if there is no room.
        """
        model = model or (self.origin and self.origin.model)
        if model is None:
            raise ValueError("this cache does not know the model that made it: give it, cache.save(path, model)")
        tensors = {f"{i}.{name}": t for i, layer in enumerate(self.layers) for name, t in layer.tensors().items()}
        also = {name: t for name in ("mask", "tokens") if (t := getattr(self, name)) is not None}
        return cache_file.save(path, tensors | also, self.length, self.batch, model)

    @staticmethod
    def load(path: str | Path, model: Any) -> Cache:
        """A saved cache, bit by bit, on the model's device, to go on from as if the model had just read the tokens.

        Raises ValueError if the file is not whole, or of another config, dtype or weights than the model's.
        """
        tensors, length, batch = cache_file.load(path, model)
        part = tensors.get
        layers = (LayerCache(part(f"{i}.conv"), part(f"{i}.ssm"), part(f"{i}.k"), part(f"{i}.v")) for i in range(model.config.n_layers))
        return Cache(tuple(layers), length, batch, part("mask"), part("tokens"), Origin(model))
