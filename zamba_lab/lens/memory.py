"""Changing what is remembered, from a position on: states, windows, keys and values wiped, frozen, or another text's.

wipe("ssm", 3, at=40)                    what layer 3's states held when token 40 came is gone; they go on from 0
freeze("ssm", 3, at=40)                  they stay what they were, whatever comes
overwrite("kv", 1, at=40, donor=cache)   invocation 1 remembers another text of 40 tokens

part     its number         wiped                                    frozen
ssm      the layer's        0                                        step sizes 0: neither fades nor is written to
conv     the layer's        its window is 0                          each token is convolved with the same last inputs
kv       the invocation's   keys before `at` are hidden from later   later tokens read the keys before `at`, and each
         (a transformer's   tokens                                   its own
         layer's)
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from einops import einsum
from torch import Tensor

from zamba_lab.cache import Cache
from zamba_lab.config import ZambaConfig
from zamba_lab.lens.interventions import Edits, Intervention, MemoryChange, Patch, Piece
from zamba_lab.lens.parts import attention_depths, attention_path, convolved, mixer_depths, numbered, phrase
from zamba_lab.lens.timetravel import FIELDS, transplant
from zamba_lab.model import Zamba
from zamba_lab.trace import Edit


def memory_numbers(config: ZambaConfig, part: str, where: int | None) -> tuple[int, ...]:
    """The numbers of the memories meant. Raises ValueError if the model has no such part or not that many."""
    require_memory(part)
    count = len(attention_depths(config) if part == "kv" else mixer_depths(config))
    if not count:
        raise ValueError(f"the model has no {part}: mixer {config.mixer!r}, n_shared_blocks {config.n_shared_blocks}")
    return numbered(part, where, count)


def require_memory(part: str) -> None:
    if part not in FIELDS:
        raise ValueError(f"part must be one of {', '.join(FIELDS)}: got {part!r}")


@dataclass(frozen=True, eq=False)
class _OfMemory(Intervention):
    """What the interventions of this file have in common."""

    part: str  # "ssm", "conv" or "kv"
    where: int | None
    at: int
    done: str

    @property
    def name(self) -> str:
        return f"{phrase(self.part, self.where)} {self.done} at token {self.at}"

    def check(self, model: Zamba) -> None:
        memory_numbers(model.config, self.part, self.where)
        if self.at < 1:
            raise ValueError(f"at must be 1 or more, there is no memory before the first token: got {self.at}")

    def outlets(self, config: ZambaConfig) -> tuple[str, ...]:
        numbers = memory_numbers(config, self.part, self.where)
        return tuple(f"{attention_path(config, i)}.attn_out" if self.part == "kv" else f"layers.{i}.mamba.y" for i in numbers)

    def depths(self, cache: Cache) -> list[int]:
        """The layers meant, of a cache with something in it."""
        holders = [i for i, layer in enumerate(cache.layers) if (layer.k if self.part == "kv" else layer.ssm) is not None]
        return holders if self.where is None else [holders[self.where]]


@dataclass(frozen=True, eq=False)
class Wipe(_OfMemory, MemoryChange):
    def before(self, cache: Cache) -> Cache:
        old = {i: getattr(cache.layers[i], self.part) for i in self.depths(cache)}
        return with_part(cache, self.part, {i: None if state is None else torch.zeros_like(state) for i, state in old.items()})


def with_part(cache: Cache, part: str, states: dict[int, Tensor | None]) -> Cache:
    """The cache with "ssm" or "conv" of some depths replaced."""
    changes: dict[int, dict[str, Any]] = {i: {part: state} for i, state in states.items()}
    layers = [replace(layer, **changes[i]) if i in changes else layer for i, layer in enumerate(cache.layers)]
    return replace(cache, layers=tuple(layers))


@dataclass(frozen=True, eq=False)
class FreezeConv(_OfMemory, MemoryChange):
    """The window that the cache holds at `at` is convolved with every later token, and the cache goes on holding it."""

    def points(self, config: ZambaConfig) -> tuple[str, ...]:
        names = ("projected", *convolved(config))
        return tuple(f"layers.{i}.mamba.{name}" for i in memory_numbers(config, "conv", self.where) for name in names)

    def edits(self, model: Zamba) -> Edits:
        numbers = memory_numbers(model.config, "conv", self.where)

        def edits(piece: Piece) -> dict[str, Edit]:
            if piece.cache is None or piece.start < self.at:
                return {}
            layers = piece.cache.layers
            return {name: edit for i in numbers for name, edit in self.beside_window(model, i, cast(Tensor, layers[i].conv)).items()}

        return edits

    def beside_window(self, model: Zamba, depth: int, window: Tensor) -> dict[str, Edit]:
        """The edits of a layer that give each token the convolution's output right after `window`, (b, w - 1, channels)."""
        outputs: dict[str, Tensor] = {}
        c, mixer = model.config, model.layers[depth].mamba

        def note(projected: Tensor) -> Tensor:
            own = projected[..., c.d_inner if c.mixer == "mamba2" else 0 :][..., : c.conv_dim]
            past = einsum(window, mixer.conv_kernel[:, :-1], "b i e, e i -> b e")[:, None]
            y = F.silu(past + own * mixer.conv_kernel[:, -1] + (0 if mixer.conv_bias is None else mixer.conv_bias))
            group = (c.conv_dim - c.d_inner) // 2
            outputs.update(zip("xBC", y.split((c.d_inner, group, group), dim=-1)))
            return projected

        def noted(value: Tensor, name: str) -> Tensor:
            return outputs[name].reshape(value.shape)

        at = f"layers.{depth}.mamba"
        return {f"{at}.projected": note} | {f"{at}.{name}": partial(noted, name=name) for name in convolved(c)}

    def after(self, old: Cache, new: Cache) -> Cache:
        return with_part(new, "conv", {i: old.layers[i].conv for i in self.depths(new)})


@dataclass(frozen=True, eq=False)
class HideKeys(_OfMemory, Patch):
    """From later tokens: the keys before `at` (wiped), or those from `at` to the one before it (frozen)."""

    def points(self, config: ZambaConfig) -> tuple[str, ...]:
        return tuple(f"{attention_path(config, i)}.attn_scores" for i in memory_numbers(config, "kv", self.where))

    def edits(self, model: Zamba) -> Edits:
        points = self.points(model.config)
        return lambda piece: {point: partial(self.hide, start=piece.start) for point in points}

    def hide(self, scores: Tensor, start: int) -> Tensor:
        """scores: (b, h, l, s), the rows beginning at position `start`."""
        row = torch.arange(start, start + scores.shape[2], device=scores.device)[:, None]
        column = torch.arange(scores.shape[3], device=scores.device)[None]
        hidden = (column < self.at) if self.done == "wiped" else (column >= self.at) & (column < row)
        return scores.masked_fill(hidden & (row >= self.at), -torch.inf)


@dataclass(frozen=True, eq=False)
class FreezeSsm(_OfMemory, Patch):
    """Step sizes of 0."""

    def points(self, config: ZambaConfig) -> tuple[str, ...]:
        return tuple(f"layers.{i}.mamba.dt" for i in memory_numbers(config, "ssm", self.where))

    def edits(self, model: Zamba) -> Edits:
        points = self.points(model.config)
        return lambda piece: {point: partial(self.stop, start=piece.start) for point in points}

    def stop(self, dt: Tensor, start: int) -> Tensor:
        """dt: (b, l, ...), from position `start` on."""
        position = torch.arange(start, start + dt.shape[1], device=dt.device)
        return dt.where((position < self.at).view(-1, *[1] * (dt.ndim - 2)), 0)


@dataclass(frozen=True, eq=False)
class Overwrite(_OfMemory, MemoryChange):
    donor: Cache

    def check(self, model: Zamba) -> None:
        super().check(model)
        c, layers, like = model.config, self.donor.layers, model.final_norm.weight  # which quantisation leaves as it was
        shape = {"conv": (c.conv_state, c.conv_dim), "ssm": (c.ssm_heads, c.headdim, c.d_state), "kv": (c.kv_heads, self.at, c.head_dim)}[
            self.part
        ]
        dtype = torch.promote_types(like.dtype, torch.float32) if self.part == "ssm" else like.dtype
        depths = attention_depths(c) if self.part == "kv" else mixer_depths(c)
        for i in memory_numbers(c, self.part, self.where):
            for field in FIELDS[self.part]:
                held = getattr(layers[depths[i]], field) if depths[i] < len(layers) else None
                if held is None or held.shape[1:] != shape:
                    raise ValueError(
                        f"{phrase(self.part, i)} at token {self.at} must have shape (batch, {str(shape)[1:]}: the "
                        f"donor has {'none' if held is None else tuple(held.shape)}"
                    )
                if (held.dtype, held.device) != (dtype, like.device):
                    raise ValueError(
                        f"{phrase(self.part, i)} must be {dtype} on {like.device}, as the model's: the donor's "
                        f"is {held.dtype} on {held.device}"
                    )
        if len(layers) != c.n_layers:
            raise ValueError(f"the donor must be of the same model: it has {len(layers)} layers, the model {c.n_layers}")

    def check_pass(self, b: int, stop: int) -> None:
        if b != self.donor.batch:
            raise ValueError(f"the donor must have a row for each row: got {self.donor.batch} for {b}")

    def before(self, cache: Cache) -> Cache:
        return transplant(cache, self.donor, (self.part,), self.depths(cache))


def wipe(part: str, where: int | None, at: int) -> Intervention:
    """Take away what a part remembers of the tokens before position `at`.

    Args:
        part: "ssm", "conv" or "kv". where: its number (see the table above), None: every one. at: >= 1; if the text is read
            in one pass (`model(ids)`, `lens.effect`), a position of it, padding counted. In decoding it may lie ahead.
    """
    require_memory(part)
    return (HideKeys if part == "kv" else Wipe)(part, where, at, "wiped")


def freeze(part: str, where: int | None, at: int) -> Intervention:
    """Let a part remember the tokens before position `at`, and none after. Arguments as `wipe`."""
    require_memory(part)
    return {"ssm": FreezeSsm, "conv": FreezeConv, "kv": HideKeys}[part](part, where, at, "frozen")


def overwrite(part: str, where: int | None, at: int, donor: Cache) -> Overwrite:
    """Give a part the memory that another text left: the donor's, in force from position `at` on.

    Args:
        donor: of the same model and as many rows; for "kv", after exactly `at` tokens. Other arguments as `wipe`.
    """
    require_memory(part)
    return Overwrite(part, where, at, "overwritten", donor)
