"""Replacing what a part computes: by nothing, by its mean over a text, or by what it computed on another text.

zero("invocation", 2)                   off
mean("mixer", 3, reference)             what it gives on average: takes away what it says about *this* text
resample("head", 0, other, head=1)      what it gave at the same position of another text
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from zamba_lab.config import ZambaConfig
from zamba_lab.lens.interventions import Edits, Intervention
from zamba_lab.lens.parts import PARTS, phrase, places
from zamba_lab.lens.passes import run
from zamba_lab.model import Zamba
from zamba_lab.trace import Edit

DONE = {"zero": "off", "mean": "at its mean", "resample": "from another text"}


@dataclass(frozen=True, eq=False)
class Replace(Intervention):
    """From position `since` on, the part's value is another. Made by `zero`, `mean`, `resample`, `drop_concat`, `freeze`."""

    part: str
    where: int | None
    how: str  # a key of DONE
    source: Tensor | None = None  # the ids that the mean or the samples are taken from
    head: int | None = None
    since: int = 0

    @property
    def name(self) -> str:
        head = "" if self.head is None else f" {self.head} of attention"
        part = self.part + head
        return f"{phrase(part, self.where)} {DONE[self.how]}" + (f" from token {self.since}" if self.since else "")

    def check(self, model: Zamba) -> None:
        c = model.config
        places(c, self.part, self.where)
        if (self.part == "head") != (self.head is not None):
            raise ValueError(f"head must be given for part 'head' and for no other: got part {self.part!r}, head {self.head}")
        if self.head is not None and not 0 <= self.head < c.attn_heads:
            raise ValueError(f"head must be in 0..{c.attn_heads - 1}: got {self.head}")

    def check_pass(self, b: int, start: int, stop: int) -> None:
        if self.how == "resample" and (self.source.shape[1] < stop or len(self.source) not in (1, b)):
            raise ValueError(
                f"resampling needs a text as long as the one that runs, for each row or one for all: got ids of "
                f"shape {tuple(self.source.shape)} for {b} rows of {stop} tokens"
            )

    def edited(self, config: ZambaConfig) -> tuple[str, ...]:
        return tuple(p for i in places(config, self.part, self.where) for p in PARTS[self.part].points(config, i))

    def outlets(self, config: ZambaConfig) -> tuple[str, ...]:
        return tuple(PARTS[self.part].outlet(config, i) for i in places(config, self.part, self.where))

    def bind(self, model: Zamba) -> Edits:
        points = self.edited(model.config)
        given: dict[str, Tensor | None] = dict.fromkeys(points)
        if self.source is not None:
            trace = run(model, self.source, keep=points)
            given = {p: trace[p].mean((0, 1), keepdim=True) if self.how == "mean" else trace[p] for p in points}
        return lambda start, cache: {p: self.edit(model.config, given[p], start) for p in points}

    def edit(self, config: ZambaConfig, given: Tensor | None, start: int) -> Edit:
        chosen = {"head": (self.head,), "concat": (..., slice(config.d_model, None))}.get(self.part, (...,))
        return partial(_replaced, given=given, sampled=self.how == "resample", chosen=chosen, since=self.since, start=start)


def _replaced(value: Tensor, given: Tensor | None, sampled: bool, chosen: tuple, since: int, start: int) -> Tensor:
    """value (b, l, ...) with `chosen` of its last axes replaced, from position `since` on; None: by 0."""
    if given is None:
        given = torch.zeros_like(value)
    elif sampled:
        given = given[:, start : start + value.shape[1]]
    index = (slice(None), slice(max(0, since - start), None), *chosen)
    changed = value.clone()
    changed[index] = given.to(value.dtype).expand_as(value)[index]
    return changed


def zero(part: str, where: int | None = None, head: int | None = None) -> Replace:
    """Switch a part off.

    Args:
        part: a name of the table in `parts.py`; where: its number, None: every one; head: which head, for "head" only.
    """
    return Replace(part, where, "zero", head=head)


def mean(part: str, where: int | None, reference: Tensor, head: int | None = None) -> Replace:
    """Replace a part's value by its mean over the tokens of (b', l') ids `reference`, read from their starts.

    Other arguments as `zero`. A constant that stands for the part takes away what it says about this text, and leaves what
    it says about any: zero takes away both.
    """
    return Replace(part, where, "mean", checked(reference), head)


def resample(part: str, where: int | None, donor: Tensor, head: int | None = None) -> Replace:
    """Replace a part's value by what it is at the same position of the text `donor`.

    Args:
        donor: (1 or b, l') ids, at least as long as what runs. Other arguments as `zero`.
    """
    return Replace(part, where, "resample", checked(donor), head)


def drop_concat(where: int | None = None) -> Replace:
    """Hide the embeddings from an invocation: it reads the stream beside zeros."""
    return zero("concat", where)


def checked(ids: Tensor) -> Tensor:
    if ids.ndim != 2 or 0 in ids.shape:
        raise ValueError(f"another text is given as ids of shape (batch, length): got {tuple(ids.shape)}")
    return ids
