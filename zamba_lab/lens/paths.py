"""Path patching along the one edge that leaves a shared block: attention -> mixer.

A shared block's output t reaches the model in one place only, the mixer's input norm(x + t), and is split there: the input
projection makes z (the gate), x (what is written), B and C (where it is written and read) and dt (how long) of it. A path is
one of these. Along it t is another's, 0 or another text's; along the others it is the model's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from zamba_lab.cache import Cache
from zamba_lab.config import ZambaConfig
from zamba_lab.lens.interventions import Edits, Intervention
from zamba_lab.lens.parts import numbered, require_link_into_mixer
from zamba_lab.lens.passes import run
from zamba_lab.lens.replace import checked
from zamba_lab.model import Zamba
from zamba_lab.trace import Edit


def columns(config: ZambaConfig) -> dict[str, slice]:
    """What the columns of a mixer's input projection are, by name, before the convolution."""
    c = config
    widths = {
        "mamba2": {"z": c.d_inner, "x": c.d_inner, "B": c.n_groups * c.d_state, "C": c.n_groups * c.d_state, "dt": c.ssm_heads},
        "mamba1": {"x": c.d_inner, "z": c.d_inner},
    }[c.mixer]
    found, at = {}, 0
    for name, width in widths.items():
        found[name], at = slice(at, at + width), at + width
    return found


@dataclass(frozen=True, eq=False)
class Path(Intervention):
    """Made by `path`."""

    invocation: int
    to: tuple[str, ...]
    donor: Tensor | None

    @property
    def name(self) -> str:
        whose = "zeroed" if self.donor is None else "from another text"
        return f"invocation {self.invocation} {whose} in its mixer's {', '.join(self.to)}"

    def check(self, model: Zamba) -> None:
        c = model.config
        if not c.n_invocations:
            raise ValueError("there is no path from attention to a mixer: the model has no shared block (n_shared_blocks 0)")
        require_link_into_mixer(c)
        numbered("invocation", self.invocation, c.n_invocations)
        if not self.to or set(self.to) - set(columns(c)):
            raise ValueError(f"a path leads to {', '.join(columns(c))} of a {c.mixer} mixer: got {self.to}")

    def check_pass(self, b: int, start: int, stop: int) -> None:
        if self.donor is not None and (self.donor.shape[1] < stop or len(self.donor) not in (1, b)):
            raise ValueError(
                f"patching needs a text as long as the one that runs, for each row or one for all: got ids of "
                f"shape {tuple(self.donor.shape)} for {b} rows of {stop} tokens"
            )

    def outlets(self, config: ZambaConfig) -> tuple[str, ...]:
        return (f"layers.{config.hybrid_layers[self.invocation]}.mamba.out",)

    def edited(self, config: ZambaConfig) -> tuple[str, ...]:
        depth = config.hybrid_layers[self.invocation]
        return f"layers.{depth}.resid_in", f"layers.{depth}.mamba.projected"

    def bind(self, model: Zamba) -> Edits:
        depth = model.config.hybrid_layers[self.invocation]
        layer, link = model.layers[depth], f"invocation.{self.invocation}.link_out"
        given = None if self.donor is None else run(model, self.donor, keep=[link])[link]
        which = [columns(model.config)[name] for name in self.to]

        def edits(start: int, cache: Cache | None) -> dict[str, Edit]:
            seen: dict[str, Tensor] = {}  # the pass's own x, on which the other t is set
            other = partial(_other, seen=seen, layer=layer, given=given, which=which, start=start)
            return dict(zip(self.edited(model.config), (partial(_noted, seen=seen), other)))

        return edits


def _noted(x: Tensor, seen: dict[str, Tensor]) -> Tensor:
    seen["x"] = x
    return x


def _other(projected: Tensor, seen: dict[str, Tensor], layer, given: Tensor | None, which: list[slice], start: int) -> Tensor:
    """The projection with some columns computed from norm(x + another t)."""
    x = seen["x"]
    t = torch.zeros_like(x) if given is None else given[:, start : start + x.shape[1]]
    other, mixed = layer.mamba.in_proj(layer.norm(x + t)), projected.clone()
    for part in which:
        mixed[..., part] = other[..., part]
    return mixed


def path(invocation: int, to: Sequence[str], donor: Tensor | None = None) -> Path:
    """Patch an invocation's output along some of the edges into its mixer.

    Args:
        invocation: 0 <= invocation < n_invocations.
        to: of "z", "x", "B", "C", "dt" (Mamba-2) or "x", "z" (Mamba-1). All of them together: the whole of its effect.
        donor: (1 or b, l') ids whose t is used, at least as long as what runs; None: t = 0.
    """
    return Path(invocation, (to,) if isinstance(to, str) else tuple(to), None if donor is None else checked(donor))
