"""Changing what is remembered, from a position on: states and keys and values wiped, frozen, or another text's.

wipe("ssm", 3, at=40)                    what layer 3's states held when token 40 came is gone; they go on from 0
freeze("ssm", 3, at=40)                  they stay what they were, whatever comes
overwrite("kv", 1, at=40, donor=cache)   invocation 1 remembers another text of 40 tokens

part     its number         wiped                                    frozen
ssm      the layer's        0                                        step sizes 0: neither fades nor is written to
conv     the layer's        its window is 0                          each token is seen beside the same last inputs
kv       the invocation's   keys before `at` are hidden from later   later tokens read the keys before `at`, and each
         (a transformer's   tokens                                   its own
         layer's)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from einops import einsum
from torch import Tensor

from zamba_lab.cache import Cache
from zamba_lab.config import ZambaConfig
from zamba_lab.lens.interventions import Edits, Intervention
from zamba_lab.lens.parts import attention_depths, attention_path, convolved, mixer_depths, numbered, phrase
from zamba_lab.lens.replace import Replace
from zamba_lab.lens.timetravel import FIELDS, erased, transplant, with_part
from zamba_lab.model import Zamba
from zamba_lab.trace import Edit


@dataclass(frozen=True, eq=False)
class Memory(Intervention):
    """An intervention on a part of the cache."""

    part: str  # "ssm", "conv" or "kv"
    where: int | None
    at: int

    done = ""

    @property
    def name(self) -> str:
        return f"{phrase(self.part, self.where)} {self.done} at token {self.at}"

    def check(self, model: Zamba) -> None:
        memory_places(model.config, self.part, self.where)
        if self.at < 1:
            raise ValueError(f"at must be 1 or more, there is no memory before the first token: got {self.at}")

    def check_text(self, length: int) -> None:
        must_reach(self.at, length, self.name)

    def outlets(self, config: ZambaConfig) -> tuple[str, ...]:
        found = memory_places(config, self.part, self.where)
        return tuple(f"{attention_path(config, i)}.attn_out" if self.part == "kv" else f"layers.{i}.mamba.y" for i in found)

    def cut(self, position: int) -> bool:
        return position == self.at

    def depths(self, cache: Cache) -> list[int]:
        """The layers meant, of a cache with something in it."""
        holders = [i for i, layer in enumerate(cache.layers) if (layer.k if self.part == "kv" else layer.ssm) is not None]
        return holders if self.where is None else [holders[self.where]]


@dataclass(frozen=True, eq=False)
class Wipe(Memory):
    done = "wiped"

    def before(self, cache: Cache, position: int) -> Cache:
        return erased(cache, self.part, self.depths(cache))


@dataclass(frozen=True, eq=False)
class FreezeConv(Memory):
    """The window that the cache holds at `at` is what every later token is seen beside, and what the cache goes on holding."""

    done = "frozen"

    def edited(self, config: ZambaConfig) -> tuple[str, ...]:
        names = ("projected", *convolved(config))
        return tuple(f"layers.{i}.mamba.{name}" for i in memory_places(config, "conv", self.where) for name in names)

    def bind(self, model: Zamba) -> Edits:
        c = model.config

        def edits(start: int, cache: Cache | None) -> dict[str, Edit]:
            found: dict[str, Edit] = {}
            for i in memory_places(c, "conv", self.where) if start >= self.at else ():
                seen: dict[str, Tensor] = {}
                window = partial(_beside, seen=seen, mamba=model.layers[i].mamba, window=cache.layers[i].conv)
                found[f"layers.{i}.mamba.projected"] = window
                for name in convolved(c):
                    found[f"layers.{i}.mamba.{name}"] = partial(_seen, seen=seen, name=name)
            return found

        return edits

    def after(self, old: Cache | None, new: Cache, position: int) -> Cache:
        return new if position < self.at else with_part(new, "conv", self.depths(new), old)


def _beside(projected: Tensor, seen: dict[str, Tensor], mamba, window: Tensor) -> Tensor:
    """Note what the convolution gives if each token stands alone behind `window`, (b, w - 1, channels)."""
    c = mamba.config
    first = c.d_inner if c.mixer == "mamba2" else 0
    own = projected[..., first : first + c.conv_dim]
    weight = mamba.conv_kernel
    before = einsum(window, weight[:, :-1], "b i e, e i -> b e")[:, None]
    y = F.silu(before + own * weight[:, -1] + (0 if mamba.conv_bias is None else mamba.conv_bias))
    widths = (c.d_inner, (c.conv_dim - c.d_inner) // 2, (c.conv_dim - c.d_inner) // 2)
    seen.update(zip("xBC", y.split(widths, dim=-1)))
    return projected


def _seen(value: Tensor, seen: dict[str, Tensor], name: str) -> Tensor:
    return seen[name].reshape(value.shape)


@dataclass(frozen=True, eq=False)
class HideKeys(Memory):
    """From later tokens: the keys before `at` (wiped), or those from `at` to the one before it (frozen)."""

    done: str

    def edited(self, config: ZambaConfig) -> tuple[str, ...]:
        return tuple(f"{attention_path(config, i)}.attn_scores" for i in memory_places(config, "kv", self.where))

    def cut(self, position: int) -> bool:
        return False

    def bind(self, model: Zamba) -> Edits:
        points, old = self.edited(model.config), self.done == "wiped"
        return lambda start, cache: {p: partial(_hidden, at=self.at, start=start, old=old) for p in points}


def _hidden(scores: Tensor, at: int, start: int, old: bool) -> Tensor:
    """scores: (b, h, l, s), the rows beginning at position `start`."""
    row = torch.arange(start, start + scores.shape[2], device=scores.device)[:, None]
    column = torch.arange(scores.shape[3], device=scores.device)[None]
    hidden = (column < at) if old else (column >= at) & (column < row)
    return scores.masked_fill(hidden & (row >= at), -torch.inf)


@dataclass(frozen=True, eq=False)
class FreezeSsm(Replace):
    """Step sizes of 0."""

    @property
    def name(self) -> str:
        return f"{phrase('ssm', self.where)} frozen at token {self.since}"

    def check(self, model: Zamba) -> None:
        Memory("ssm", self.where, self.since).check(model)

    def check_text(self, length: int) -> None:
        must_reach(self.since, length, self.name)


@dataclass(frozen=True, eq=False)
class Overwrite(Memory):
    donor: Cache

    done = "overwritten"

    def check(self, model: Zamba) -> None:
        super().check(model)
        c, layers, like = model.config, self.donor.layers, model.final_norm.weight  # which quantisation leaves as it was
        shape = {"conv": (c.conv_state, c.conv_dim), "ssm": (c.ssm_heads, c.headdim, c.d_state), "kv": (c.kv_heads, self.at, c.head_dim)}[
            self.part
        ]
        dtype = torch.promote_types(like.dtype, torch.float32) if self.part == "ssm" else like.dtype
        depths = attention_depths(c) if self.part == "kv" else mixer_depths(c)
        for i in memory_places(c, self.part, self.where):
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

    def check_pass(self, b: int, start: int, stop: int) -> None:
        if b != self.donor.batch:
            raise ValueError(f"the donor must have a row for each row: got {self.donor.batch} for {b}")

    def before(self, cache: Cache, position: int) -> Cache:
        return transplant(cache, self.donor, (self.part,), self.depths(cache))


def memory_places(config: ZambaConfig, part: str, where: int | None) -> tuple[int, ...]:
    """The numbers of the memories meant. Raises ValueError if the model has no such part or not that many."""
    must_be_memory(part)
    count = len(attention_depths(config) if part == "kv" else mixer_depths(config))
    if not count:
        raise ValueError(f"the model has no {part}: mixer {config.mixer!r}, n_shared_blocks {config.n_shared_blocks}")
    return numbered(part, where, count)


def must_be_memory(part: str) -> None:
    if part not in FIELDS:
        raise ValueError(f"part must be one of {', '.join(FIELDS)}: got {part!r}")


def must_reach(at: int, length: int, name: str) -> None:
    if at >= length:
        raise ValueError(f"at must be the position of a token, or nothing changes: got {name}, a text of {length} tokens")


def wipe(part: str, where: int | None, at: int) -> Memory:
    """Take away what a part remembers of the tokens before position `at`.

    Args:
        part: "ssm", "conv" or "kv". where: its number (see the table above), None: every one. at: >= 1; if the text is read
            at once (`model(ids)`, `lens.effect`), a position of it. In decoding it may lie ahead.
    """
    must_be_memory(part)
    return HideKeys(part, where, at, "wiped") if part == "kv" else Wipe(part, where, at)


def freeze(part: str, where: int | None, at: int) -> Intervention:
    """Let a part remember the tokens before position `at`, and none after. Arguments as `wipe`."""
    must_be_memory(part)
    if part == "ssm":
        return FreezeSsm("steps", where, "zero", since=at)
    return FreezeConv(part, where, at) if part == "conv" else HideKeys(part, where, at, "frozen")


def overwrite(part: str, where: int | None, at: int, donor: Cache) -> Memory:
    """Give a part the memory that another text left: the donor's, in force from position `at` on.

    Args:
        donor: of the same model and as many rows; for "kv", after exactly `at` tokens. Other arguments as `wipe`.
    """
    must_be_memory(part)
    return Overwrite(part, where, at, donor)
