"""Changing a model's passes without changing the model: interventions are values, and `intervene` puts them in force.

    with intervene(model, zero("invocation", 2), swap_blocks()) as changed:
        logits, cache = changed.extend(ids)          # prefill ...
        logits, cache = changed.extend(next, cache)  # ... and decoding, under the same interventions
        zl.generate(changed, ids, 20)

The model itself is never touched, so there is nothing to undo, nothing to forget, and other threads may use it. There are
three kinds of intervention:

    Rewire         the structure: a view of the model with the same weights              (rewire.py)
    Patch          activations: edits of trace points in each pass                       (replace.py, and frozen memories)
    MemoryChange   what decoding carries, between the tokens at - 1 and at               (memory.py)

What they do to a measure: `effect.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from zamba_lab.blocks.inputs import last_real
from zamba_lab.cache import Cache
from zamba_lab.config import ZambaConfig
from zamba_lab.model import Zamba
from zamba_lab.trace import OFF, Edit, Trace

BY_HEAD = ("q", "k", "v", "attn_scores", "attn_probs")  # points that have their heads before their positions
HIDDEN = {"attn_scores": -torch.inf, "attn_probs": 0.0}  # points with an axis over all positions, and the value of a hidden key


@dataclass(frozen=True)
class Piece:
    """Consecutive tokens that the model reads in one pass, as a `Patch` needs to know them."""

    start: int  # the position of the first token
    cache: Cache | None  # that it is read with
    mask: Tensor | None  # (b, s) bool over all positions of the call and before, False at padding; None: no padding


Edits = Callable[[Piece], dict[str, Edit]]


class Intervention:
    """A change of a model's passes, as a value. This one changes nothing; `Rewire`, `Patch` and `MemoryChange` are the kinds."""

    if TYPE_CHECKING:  # each kind has it as a field or as a property

        @property
        def name(self) -> str: ...

    def check(self, model: Zamba) -> None:
        """Raise ValueError if the model lacks the part, or a size does not fit it. Called before anything runs."""

    def check_pass(self, b: int, stop: int) -> None:
        """Raise ValueError if b rows cannot be served up to position stop - 1."""

    def outlets(self, config: ZambaConfig) -> tuple[str, ...]:
        """The trace points, (b, l, ...), at which the change enters the rest of the model: where a control perturbs."""
        return ()


class Rewire(Intervention):
    def rewire(self, model: Zamba) -> Zamba:
        """The model with another structure, sharing its weights."""
        return model


class Patch(Intervention):
    def points(self, config: ZambaConfig) -> tuple[str, ...]:
        """The trace points that are edited."""
        return ()

    def edits(self, model: Zamba) -> Edits:
        """From a piece to its edits, by trace point."""
        return lambda piece: {}


class MemoryChange(Patch):
    """The cache is changed between the tokens at positions `at` - 1 and `at`; the pass is cut there."""

    at: int

    def before(self, cache: Cache) -> Cache:
        """The cache that the token at position `at` is read with, from the one that the tokens before it left."""
        return cache

    def after(self, old: Cache, new: Cache) -> Cache:
        """The cache after a piece that began at `at` or later, with the cache `old`."""
        return new


class Intervened:
    """A model under interventions: called, extended and generated from like the model.

    Everything else (config, layers, tokenizer) is that of the model as the interventions rewired it. Made by `intervene`.
    """

    def __init__(self, model: Zamba | Intervened, interventions: tuple[Intervention, ...]):
        outer, view = (model.interventions, model.base) if isinstance(model, Intervened) else ((), model)
        self.base, self.interventions = view, (*outer, *interventions)
        for each in self.interventions:
            each.check(view)
            view = each.rewire(view) if isinstance(each, Rewire) else view
        self.view = view
        self._patches = [each for each in self.interventions if isinstance(each, Patch)]
        self._memories = [each for each in self.interventions if isinstance(each, MemoryChange)]
        self._edits = [patch.edits(view) for patch in self._patches]

    def __enter__(self) -> Intervened:
        return self

    def __exit__(self, *error) -> None:
        """Nothing was changed, so nothing is changed back."""

    def __getattr__(self, name: str):
        return getattr(self.__dict__["view"], name)

    def __call__(self, ids: Tensor, mask: Tensor | None = None, trace=OFF) -> Tensor:
        """As `Zamba.forward`. Raises ValueError if an intervention is in force from a position only that ids do not reach."""
        self.check_text(ids)
        return self.extend(ids, None, mask, trace)[0]

    def check_text(self, ids: Tensor) -> None:
        """Raise ValueError if a pass over these (b, l) ids alone cannot be served, or leaves an intervention idle.

        `extend` has no such check: more tokens may follow.
        """
        length = ids.shape[-1]
        for each in self.interventions:
            each.check_pass(len(ids), length)
            if getattr(each, "at", 0) >= length:
                raise ValueError(f"at must be the position of a token, or nothing changes: got {each.name}, a text of {length} tokens")

    def extend(
        self, ids: Tensor, cache: Cache | None = None, mask: Tensor | None = None, trace: Any = OFF, last_only: bool = False
    ) -> tuple[Tensor, Cache]:
        """As `Zamba.extend`. `trace` sees the pass as it went, and its own edits come after the interventions'."""
        start = 0 if cache is None else cache.length
        stop = start + ids.shape[-1]
        for each in self.interventions:
            each.check_pass(len(ids), stop)
        bounds = [start, *sorted({memory.at for memory in self._memories if start < memory.at < stop}), stop]
        in_one, seen = len(bounds) == 2, joined_mask(ids, cache, mask)
        if trace is not OFF:
            trace.clear()  # a pass that fails leaves nothing
        logits, traces = [], []
        for first, last in pairwise(bounds):
            tokens = slice(first - start, last - start)
            for memory in self._memories:
                cache = memory.before(cache) if cache is not None and memory.at == first else cache
            inner = self._trace(trace, Piece(first, cache, seen))
            out, new = self.view.extend(ids[:, tokens], cache, None if mask is None else mask[:, tokens], inner, last_only and in_one)
            for memory in self._memories:
                new = memory.after(cache, new) if cache is not None and memory.at <= first else new
            cache = new
            logits.append(out)
            traces.append(inner)
        if trace is not OFF:
            hand_over(traces, trace)
        joined = torch.cat(logits, dim=1) if len(logits) > 1 else logits[0]
        return last_real(joined, mask) if last_only and not in_one else joined, cast(Cache, cache)

    def edited(self) -> tuple[str, ...]:
        """The trace points that the interventions edit."""
        return tuple(dict.fromkeys(point for patch in self._patches for point in patch.points(self.config)))

    def _trace(self, trace, piece: Piece):
        """The trace of a piece: the interventions' edits, then those of the caller's trace; OFF where there are none."""
        edits: dict[str, Edit] = {}
        for more in (*(edits_of(piece) for edits_of in self._edits), {} if trace is OFF else trace.edit):
            for name, edit in more.items():
                edits[name] = partial(_chained, edits[name], edit) if name in edits else edit
        return (Trace(edit=edits) if edits else OFF) if trace is OFF else Trace(trace.keep, edits)


def intervene(model: Zamba | Intervened, *interventions: Intervention) -> Intervened:
    """The model under interventions, in the order given; of an intervened model, after its own.

    Usable as it is or in a `with`. Raises ValueError if the model lacks a part that is named, or sizes do not fit.
    """
    return Intervened(model, interventions)


def joined_mask(ids: Tensor, cache: Cache | None, mask: Tensor | None) -> Tensor | None:
    """The mask over the cache's positions and those of (b, l) ids, (b, s) bool; None if nothing is padding."""
    past = None if cache is None else cache.mask
    if past is None and (mask is None or mask.all()):
        return None
    lengths = 0 if cache is None else cache.length, ids.shape[1]
    parts = (part if part is not None else ids.new_ones(len(ids), length) for part, length in zip((past, mask), lengths))
    return torch.cat([part.bool() for part in parts], dim=1)


def hand_over(pieces: list[Trace], trace: Trace) -> None:
    """Put what the traces of consecutive pieces kept into one."""
    for name in pieces[-1].values:
        values = [piece.values[name] for piece in pieces]
        trace.values[name] = values[0] if len(values) == 1 else _joined(name.rsplit(".", 1)[-1], values)
    trace._alias.update(pieces[-1]._alias)


def _joined(point: str, values: list[Tensor]) -> Tensor:
    if point in HIDDEN:
        s = values[-1].shape[-1]
        values = [F.pad(value, (0, s - value.shape[-1]), value=HIDDEN[point]) for value in values]
    return torch.cat(values, dim=2 if point in BY_HEAD else 1)


def _chained(first: Edit, second: Edit, value: Tensor) -> Tensor:
    return second(first(value).to(value.dtype))
