"""Replacing what a part computes: by 0, by its mean over a text, or by what it computed on another text.

zero("invocation", 2)                   0
mean("mixer", 3, reference)             its mean over another text: takes away what it says about *this* text
resample("head", 0, other, head=1)      what it gave at the same position of another text
path(2, "dt", other)                    the same of an invocation's output, along some of the edges into its mixer only

To measure what a part is worth take `mean` or `resample`. Zero misleads: a part that always gives the same vector, which the
layers behind it have learnt to expect, seems vital when it is zeroed, though it tells them nothing about the text. Its mean
keeps that vector, and takes away only what the part says about this text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from zamba_lab.config import ZambaConfig
from zamba_lab.lens.interventions import Edits, Patch, Piece
from zamba_lab.lens.parts import PARTS, numbered, numbers, phrase, require_link_into_mixer
from zamba_lab.lens.passes import run
from zamba_lab.model import Zamba
from zamba_lab.trace import Edit, Trace

DONE = {"zero": "zeroed", "mean": "at its mean", "resample": "from another text"}


class Text:
    """Another text, (b', l') ids, and its padding: `mask` of its shape, or None, which `mean` and `resample` explain."""

    def __init__(self, ids: Tensor, mask: Tensor | None = None):
        if ids.ndim != 2 or 0 in ids.shape:
            raise ValueError(f"another text is given as ids of shape (batch, length): got {tuple(ids.shape)}")
        if mask is not None and mask.shape != ids.shape:
            raise ValueError(f"mask must have the shape of the text that it is of: got {tuple(mask.shape)}, ids {tuple(ids.shape)}")
        self.ids, self.mask = ids, mask

    def check_pass(self, b: int, stop: int) -> None:
        """Raise ValueError unless there is a token for each of b rows and `stop` positions."""
        if self.ids.shape[1] < stop or len(self.ids) not in (1, b):
            raise ValueError(
                "this takes values of another text at the same positions, a text as long as the one that runs, for each row or "
                f"one for all: got ids of shape {tuple(self.ids.shape)} for {b} rows of {stop} tokens"
            )

    def reader(self, model: Zamba, points: Sequence[str], aligned: bool) -> Callable[[Tensor | None], tuple[Trace, Tensor | None]]:
        """A function from the mask of the pass that runs to the trace of this text, and the mask it was read with.

        aligned: this text is laid beside the one that runs. The last trace is remembered: decoding asks at each token.
        """
        last: list = []

        def read(pass_mask: Tensor | None) -> tuple[Trace, Tensor | None]:
            mask = self.mask_beside(pass_mask, aligned)
            same = last and (mask is last[1] or mask is not None and last[1] is not None and torch.equal(mask, last[1]))
            if not same:
                ids = self.ids if mask is None else self.ids.expand(len(mask), -1)
                last[:] = run(model, ids, keep=points, mask=mask), mask
            return last[0], last[1]

        return read

    def mask_beside(self, mask: Tensor | None, aligned: bool) -> Tensor | None:
        """Its own mask; where it has none, that of the pass, (b, s), if it is laid beside the text that runs or has its shape."""
        length = self.ids.shape[1]
        if self.mask is not None or mask is None or len(self.ids) not in (1, len(mask)):
            return self.mask
        if not aligned:
            return mask if mask.shape == self.ids.shape else None
        return F.pad(mask.bool()[:, :length], (0, max(0, length - mask.shape[1])), value=True)  # what comes later is no padding


class Recorded:
    """In place of a `Text`: values that a trace of it has kept, with the mask of that pass."""

    def __init__(self, trace: Trace, mask: Tensor | None = None):
        self.trace, self.mask = trace, mask

    def check_pass(self, b: int, stop: int) -> None:
        """They are of the text that runs, or means."""

    def reader(self, model: Zamba, points: Sequence[str], aligned: bool) -> Callable[[Tensor | None], tuple[Trace, Tensor | None]]:
        return lambda pass_mask: (self.trace, self.mask)


@dataclass(frozen=True, eq=False)
class Replace(Patch):
    """The part's value is another. Made by `zero`, `mean`, `resample`, `drop_concat`."""

    part: str
    where: int | None
    how: str  # a key of DONE
    source: Text | Recorded | None = None  # of the mean or the samples
    head: int | None = None

    @property
    def name(self) -> str:
        part = self.part if self.head is None else f"{self.part} {self.head} of attention"
        return f"{phrase(part, self.where)} {DONE[self.how]}"

    def check(self, model: Zamba) -> None:
        c = model.config
        numbers(c, self.part, self.where)
        if (self.part == "head") != (self.head is not None):
            raise ValueError(f"head must be given for part 'head' and for no other: got part {self.part!r}, head {self.head}")
        if self.head is not None and not 0 <= self.head < c.attn_heads:
            raise ValueError(f"head must be in 0..{c.attn_heads - 1}: got {self.head}")

    def check_pass(self, b: int, stop: int) -> None:
        if self.source is not None and self.how == "resample":
            self.source.check_pass(b, stop)

    def points(self, config: ZambaConfig) -> tuple[str, ...]:
        return tuple(p for i in numbers(config, self.part, self.where) for p in PARTS[self.part].points(config, i))

    def outlets(self, config: ZambaConfig) -> tuple[str, ...]:
        return tuple(PARTS[self.part].outlet(config, i) for i in numbers(config, self.part, self.where))

    def edits(self, model: Zamba) -> Edits:
        points, c = self.points(model.config), model.config
        read = None if self.source is None else self.source.reader(model, points, aligned=self.how == "resample")
        chosen = {"head": (self.head,), "concat": (..., slice(c.d_model, None))}.get(self.part, (...,))

        def edits(piece: Piece) -> dict[str, Edit]:
            replaced = partial(_replaced, chosen=chosen, real=None if piece.mask is None else piece.mask[:, piece.start :])
            if read is None:
                return {point: partial(replaced, other=None) for point in points}
            trace, mask = read(piece.mask)
            others = {point: mean_token(trace[point], mask) if self.how == "mean" else trace[point][:, piece.start :] for point in points}
            return {point: partial(replaced, other=others[point]) for point in points}

        return edits


def mean_token(value: Tensor, mask: Tensor | None) -> Tensor:
    """The mean over the tokens of (b, l, ...), (1, 1, ...); padding is left out."""
    return value.mean((0, 1), keepdim=True) if mask is None else value[mask.bool()].mean(0)[None, None]


def _replaced(value: Tensor, other: Tensor | None, chosen: tuple, real: Tensor | None) -> Tensor:
    """value (b, l, ...) with `chosen` of its last axes from `other`, (b or 1, at least l or 1, ...); None: 0.

    real: (b, at least l) bool; where False the value stays as it is: a step size other than 0 would let time pass at padding.
    """
    other = torch.zeros_like(value) if other is None else other[:, : value.shape[1]].to(value.dtype).expand_as(value)
    index = (slice(None), slice(None), *chosen)
    changed = value.clone()
    changed[index] = other[index]
    return changed if real is None else changed.where(real[:, : value.shape[1]].view(*value.shape[:2], *[1] * (value.ndim - 2)), value)


def zero(part: str, where: int | None = None, head: int | None = None) -> Replace:
    """Replace a part's value by 0, which misleads about what the part is worth: see the module.

    Args:
        part: a name of the table in `parts.py`; where: its number, None: every one; head: which head, for "head" only.
    """
    return Replace(part, where, "zero", head=head)


def mean(part: str, where: int | None, reference: Tensor, head: int | None = None, mask: Tensor | None = None) -> Replace:
    """Replace a part's value by its mean over the tokens of (b', l') ids `reference`, read from their starts.

    Args:
        mask: (b', l'), that of the reference. None: that of the text that runs, if it has the same shape; else no padding.

    Other arguments as `zero`.
    """
    return Replace(part, where, "mean", Text(reference, mask), head)


def resample(part: str, where: int | None, donor: Tensor, head: int | None = None, mask: Tensor | None = None) -> Replace:
    """Replace a part's value by what it is at the same position of the text `donor`.

    Args:
        donor: (1 or b, l') ids, at least as long as what runs.
        mask: (1 or b, l'), that of the donor. None: that of the text that runs, beside which it is laid position by position.

    Other arguments as `zero`.
    """
    return Replace(part, where, "resample", Text(donor, mask), head)


def drop_concat(where: int | None = None) -> Replace:
    """Hide the embeddings from an invocation: it reads the stream beside zeros."""
    return zero("concat", where)


def columns(config: ZambaConfig) -> dict[str, slice]:
    """The columns of a mixer's input projection, by name, before the convolution."""
    c = config
    widths = {
        "mamba2": {"z": c.d_inner, "x": c.d_inner, "B": c.n_groups * c.d_state, "C": c.n_groups * c.d_state, "dt": c.ssm_heads},
        "mamba1": {"x": c.d_inner, "z": c.d_inner},
    }[c.mixer]
    slices, start = {}, 0
    for name, width in widths.items():
        slices[name], start = slice(start, start + width), start + width
    return slices


@dataclass(frozen=True, eq=False)
class Path(Patch):
    """Made by `path`."""

    invocation: int
    to: tuple[str, ...]
    donor: Text | None

    @property
    def name(self) -> str:
        done = "zeroed" if self.donor is None else "from another text"
        return f"invocation {self.invocation} {done} in its mixer's {', '.join(self.to)}"

    def check(self, model: Zamba) -> None:
        c = model.config
        if not c.n_invocations:
            raise ValueError("there is no path from attention to a mixer: the model has no shared block (n_shared_blocks 0)")
        require_link_into_mixer(c)
        numbered("invocation", self.invocation, c.n_invocations)
        if not self.to or set(self.to) - set(columns(c)):
            raise ValueError(f"a path leads to {', '.join(columns(c))} of a {c.mixer} mixer: got {self.to}")

    def check_pass(self, b: int, stop: int) -> None:
        if self.donor is not None:
            self.donor.check_pass(b, stop)

    def outlets(self, config: ZambaConfig) -> tuple[str, ...]:
        return (f"layers.{config.hybrid_layers[self.invocation]}.mamba.out",)

    def points(self, config: ZambaConfig) -> tuple[str, ...]:
        depth = config.hybrid_layers[self.invocation]
        return f"layers.{depth}.resid_in", f"layers.{depth}.mamba.projected"

    def edits(self, model: Zamba) -> Edits:
        layer, link = model.layers[model.config.hybrid_layers[self.invocation]], f"invocation.{self.invocation}.link_out"
        read = None if self.donor is None else self.donor.reader(model, [link], aligned=True)
        patched = [columns(model.config)[name] for name in self.to]

        def edits(piece: Piece) -> dict[str, Edit]:
            stream: list[Tensor] = []  # the pass's own x, to which the other t is added

            def note(x: Tensor) -> Tensor:
                stream[:] = [x]
                return x

            def patch(projected: Tensor) -> Tensor:
                x, changed = stream[0], projected.clone()
                t = 0 if read is None else read(piece.mask)[0][link][:, piece.start : piece.start + x.shape[1]]
                other = layer.mamba.in_proj(layer.norm(x + t))
                for part in patched:
                    changed[..., part] = other[..., part]
                return changed

            return dict(zip(self.points(model.config), (note, patch)))

        return edits


def path(invocation: int, to: Sequence[str], donor: Tensor | None = None, mask: Tensor | None = None) -> Path:
    """Patch an invocation's output t along some of the edges into its mixer (path patching).

    t reaches the model in one place only, the mixer's input norm(x + t). There the input projection makes z (the gate), x (what
    is written), B and C (where it is written and read) and dt (how long it stays) of it. Along the edges named, t is another
    text's or 0; along the others it is the model's own.

    Args:
        invocation: 0 <= invocation < n_invocations.
        to: of "z", "x", "B", "C", "dt" (Mamba-2) or "x", "z" (Mamba-1). All of them together: the invocation replaced.
        donor, mask: the text whose t is used, as in `resample`; None: t = 0.
    """
    return Path(invocation, (to,) if isinstance(to, str) else tuple(to), None if donor is None else Text(donor, mask))
