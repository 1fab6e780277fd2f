"""Changing a model's passes without changing the model: interventions are values, and `intervene` puts them in force.

    with intervene(model, zero("invocation", 2), swap_blocks()) as changed:
        logits, cache = changed.extend(ids)          # prefill ...
        logits, cache = changed.extend(next, cache)  # ... and decoding, under the same interventions
        zl.generate(changed, ids, 20)

The model itself is never touched, so there is nothing to undo, nothing to forget, and other threads may use it. An
intervention acts in one or more of three ways: on the model's structure, through a view that shares its weights
(`rewire`); on activations, by edits of the trace (`bind`); on what decoding carries, between two pieces of the sequence
(`cut`, `before`, `after`). The kinds: `replace.py`, `rewire.py`, `hold.py`, `paths.py`. What they do: `effect.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from zamba_lab.cache import Cache
from zamba_lab.config import ZambaConfig
from zamba_lab.model import Zamba, last_real
from zamba_lab.trace import OFF, Edit, Trace

# from the position of the first new token, and the cache that it is given, to the edits of a pass
Edits = Callable[[int, Cache | None], dict[str, Edit]]

BY_HEAD = ("q", "k", "v", "attn_scores", "attn_probs")  # points that have their heads before their positions
HIDDEN = {"attn_scores": -torch.inf, "attn_probs": 0.0}  # points with an axis over all positions; what fills it up


@dataclass(frozen=True, eq=False)
class Intervention:
    """A change of a model's passes, as a value. This one changes nothing; the kinds say what they change."""

    @property
    def name(self) -> str:
        return "nothing"

    def check(self, model: Zamba) -> None:
        """Raise ValueError if the model lacks the part, or a size does not fit it. Called before anything runs."""

    def check_pass(self, b: int, start: int, stop: int) -> None:
        """Raise ValueError if a pass of b rows over positions start..stop-1 cannot be served."""

    def check_text(self, length: int) -> None:
        """Raise ValueError if it would change nothing in a text of so many tokens, read at once and never gone on with."""

    def rewire(self, model: Zamba) -> Zamba:
        """The model with another structure, sharing its weights."""
        return model

    def bind(self, model: Zamba) -> Edits:
        """The trace edits of a pass that starts at a position; what they need from other texts is computed here, once."""
        return lambda start, cache: {}

    def edited(self, config: ZambaConfig) -> tuple[str, ...]:
        """The trace points that the edits are of."""
        return ()

    def cut(self, position: int) -> bool:
        """Whether the cache must be seen between the tokens at position - 1 and position."""
        return False

    def before(self, cache: Cache, position: int) -> Cache:
        """The cache that the token at a cut position is given."""
        return cache

    def after(self, old: Cache | None, new: Cache, position: int) -> Cache:
        """The cache after a piece that began at `position` with the cache `old`."""
        return new

    def outlets(self, config: ZambaConfig) -> tuple[str, ...]:
        """The trace points, (b, l, ...), at which the change enters the rest of the model: where a control perturbs."""
        return ()


class Intervened:
    """A model under interventions: called, extended and generated from like the model.

    Everything else (config, layers, tokenizer) is that of the model as the interventions rewired it. Made by `intervene`.
    """

    def __init__(self, model: Zamba | Intervened, interventions: tuple[Intervention, ...]):
        outer, base = (model.interventions, model.base) if isinstance(model, Intervened) else ((), model)
        self.base, self.interventions = base, (*outer, *interventions)
        for one in self.interventions:
            one.check(base)
            base = one.rewire(base)
        self.view = base
        self._bound = [one.bind(base) for one in self.interventions]

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
        """Raise ValueError if a pass over these (b, l) ids and no more cannot be served, or leaves an intervention idle.

        `extend` has no such check: what it reads may be gone on with.
        """
        for one in self.interventions:
            one.check_pass(len(ids), 0, ids.shape[-1])
            one.check_text(ids.shape[-1])

    def extend(
        self, ids: Tensor, cache: Cache | None = None, mask: Tensor | None = None, trace=OFF, last_only: bool = False
    ) -> tuple[Tensor, Cache]:
        """As `Zamba.extend`. `trace` sees the pass as it went, and its own edits come after the interventions'."""
        start = 0 if cache is None else cache.length
        stop = start + ids.shape[-1]
        for one in self.interventions:
            one.check_pass(len(ids), start, stop)
        bounds = [start, *(p for p in range(start + 1, stop) if any(one.cut(p) for one in self.interventions)), stop]
        whole = len(bounds) == 2
        logits, traces = [], []
        for first, last in pairwise(bounds):
            piece = slice(first - start, last - start)
            for one in self.interventions:
                cache = one.before(cache, first) if first and one.cut(first) else cache
            inner = self._trace(trace, first, cache)
            out, new = self.view.extend(ids[:, piece], cache, None if mask is None else mask[:, piece], inner, last_only and whole)
            for one in self.interventions:
                new = one.after(cache, new, first)
            cache = new
            logits.append(out)
            traces.append(inner)
        if trace is not OFF:
            hand_over(traces, trace)
        if last_only and not whole:
            return last_real(torch.cat(logits, dim=1), mask), cache
        return torch.cat(logits, dim=1) if len(logits) > 1 else logits[0], cache

    def edited(self) -> tuple[str, ...]:
        """The trace points that the interventions edit."""
        return tuple(dict.fromkeys(point for one in self.interventions for point in one.edited(self.config)))

    def _edits(self, start: int, cache: Cache | None) -> dict[str, Edit]:
        found: dict[str, Edit] = {}
        for bound in self._bound:
            for name, edit in bound(start, cache).items():
                found[name] = partial(_chained, found[name], edit) if name in found else edit
        return found

    def _trace(self, trace, start: int, cache: Cache | None):
        """The trace of a piece: the interventions' edits, then those of the caller's trace; OFF where there are none."""
        edits = self._edits(start, cache)
        if trace is OFF:
            return Trace(edit=edits) if edits else OFF
        for name, edit in trace.edit.items():
            edits[name] = partial(_chained, edits[name], edit) if name in edits else edit
        return Trace(trace.keep, edits)


def intervene(model: Zamba | Intervened, *interventions: Intervention) -> Intervened:
    """The model under interventions, in the order given; of an intervened model, after its own.

    Usable as it is or in a `with`. Raises ValueError if the model lacks a part that is named, or sizes do not fit.
    """
    return Intervened(model, interventions)


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
