"""What an intervention does to a measure of the model, beside what as large a random change would do.

A number for a part says little alone: any push of that size might do as much. So the default comes with controls: at each
place where the change enters the rest of the model (`outlets`), and at each token, the model's own value is moved in a
random direction by exactly the distance that the intervention moved it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zamba_lab.lens.interventions import Edits, Intervened, Intervention, intervene
from zamba_lab.lens.parts import parts
from zamba_lab.lens.passes import next_token_loss, run, token_losses
from zamba_lab.lens.replace import zero
from zamba_lab.lens.rewire import known_until
from zamba_lab.model import Zamba
from zamba_lab.trace import Trace

Metric = Callable[[Tensor, Tensor], Tensor]  # logits (b, l, v), ids (b, l) -> (b, ...)
SWITCHED = ("invocation", "adapter", "concat")  # the parts that belong to one use of a shared block


@dataclass(frozen=True, eq=False)
class Effect:
    """A measure of the model whole, changed, and under controls. Axis b is the prompts; the rest is the measure's own."""

    name: str
    whole: Tensor  # (b, ...)
    changed: Tensor  # (b, ...)
    control: Tensor  # (c, b, ...), c controls, perhaps none
    real: Tensor | None = None  # (b, the measure's second axis) bool, False where padding has to do with it; None: nowhere

    @property
    def change(self) -> Tensor:
        """(b, ...); of a loss, > 0 where the part helped."""
        return self.changed - self.whole

    @property
    def control_change(self) -> Tensor:
        """(c, b, ...)"""
        return self.control - self.whole

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """A bootstrap interval, over prompts, of the mean change of each; padding is left out."""
        return _ends(bootstrap(self.by_prompt(self.change), level))

    def control_interval(self, level: float = 0.95) -> tuple[float, float]:
        """The same of the controls' mean change, a prompt's controls averaged."""
        return _ends(bootstrap(self.by_prompt(self.control_change.mean(0)), level))

    def excess_interval(self, level: float = 0.95) -> tuple[float, float]:
        """The same of what the change costs beyond its controls, prompt by prompt: the two are measured on the same tokens."""
        return _ends(bootstrap(self.by_prompt(self.change - self.control_change.mean(0)), level))

    def by_prompt(self, values: Tensor) -> Tensor:
        """The mean of (b, ...) values over each prompt without its padding; a prompt of which nothing is left is left out."""
        if self.real is None:
            return values.reshape(len(values), -1).mean(1)
        return torch.stack([row[real].mean() for row, real in zip(values, self.real) if real.any()])


def _ends(interval: tuple[Tensor, Tensor]) -> tuple[float, float]:
    return float(interval[0]), float(interval[1])


def bootstrap(values: Tensor, level: float = 0.95, resamples: int = 2000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """The bootstrap interval of a mean over the first axis, bias-corrected and accelerated (BCa: Efron 1987).

    Args:
        values: (n, ...), one for each independent unit. level: in (0, 1). resamples: how often n of them are drawn.

    Returns: its low and high ends, each of shape (...), float64. Where all n are equal, both ends are that value: nothing is
    known of how others differ. NaN if n < 2, of which nothing can be said. Of few units the interval is too narrow.
    """
    from scipy import stats

    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1): got {level}")
    values = values.detach().double().cpu()
    if len(values) < 2:
        nothing = torch.full(values.shape[1:], torch.nan, dtype=values.dtype)
        return nothing, nothing
    flat = values.reshape(len(values), -1)
    low, high = flat[0].clone(), flat[0].clone()
    differ = (flat != flat[0]).any(0)
    if differ.any():
        found = stats.bootstrap(
            (flat[:, differ].numpy(),),
            np.mean,
            n_resamples=resamples,
            confidence_level=level,
            axis=0,
            batch=max(1, 10**7 // flat.numel()),
            rng=np.random.default_rng(seed),
        )
        low[differ], high[differ] = map(torch.from_numpy, found.confidence_interval)
    return low.view(values.shape[1:]), high.view(values.shape[1:])


def divergence_from(whole: Tensor) -> Metric:
    """The measure KL(whole || changed) in nats, (b, l), from the untouched model's logits."""
    wide = torch.promote_types(whole.dtype, torch.float32)
    before = whole.to(wide).log_softmax(-1)
    return lambda logits, ids: F.kl_div(logits.to(wide).log_softmax(-1), before, reduction="none", log_target=True).sum(-1)


@torch.no_grad()
def effect(
    model: Zamba | Intervened,
    ids: Tensor,
    interventions: Intervention | Sequence[Intervention],
    metric: Metric = token_losses,
    mask: Tensor | None = None,
    controls: int = 3,
    seed: int = 0,
) -> Effect:
    """Measure the model with and without interventions, and with random changes of the same size.

    Args:
        ids: (b, l) prompts. mask: as `Zamba.forward`. Of a measure with l numbers a prompt, or l - 1, each for a token and the
            next, the intervals leave out those of padding; any other measure is to leave padding out itself.
        interventions: one or several, together in force.
        metric: from logits (b, l, v) and ids to (b, ...), such as `token_losses` or `divergence_from(logits)`.
        controls: how many; each is a pass.

    All passes take the same route through the same operations, so that what the interventions do not reach is equal, bitwise.
    Raises ValueError if the model lacks a part, sizes do not fit, or a memory is changed at a position that ids do not reach.
    """
    several = (interventions,) if isinstance(interventions, Intervention) else tuple(interventions)
    changed = intervene(model, *several)
    changed.check_text(ids)
    outlets = tuple(dict.fromkeys(p for one in several for p in one.outlets(changed.config)))
    keep = (*outlets, *changed.edited())
    before = _pass(intervene(model, SameCuts(several)), ids, mask, keep)
    after = _pass(changed, ids, mask, keep)
    whole = metric(before["logits"], ids)
    under = [
        metric(_pass(intervene(model, Nudge.between(before, after, outlets, seed + i), SameCuts(several)), ids, mask, keep)["logits"], ids)
        for i in range(controls)
    ]
    name = " and ".join(one.name for one in several) or "nothing"
    return Effect(name, whole, metric(after["logits"], ids), torch.stack(under) if under else whole[None][:0], _real(mask, whole))


def _real(mask: Tensor | None, measured: Tensor) -> Tensor | None:
    """Which numbers of a measure (b, ...) have to do with tokens only: one a token, or one for it and the next."""
    if mask is None or measured.ndim < 2:
        return None
    real = mask.bool()
    return {mask.shape[1]: real, mask.shape[1] - 1: real[:, :-1] & real[:, 1:]}.get(measured.shape[1])


def switch_off_each(model: Zamba, ids: Tensor) -> list[Effect]:
    """What each part of the shared blocks is worth: SWITCHED zeroed at each invocation alone, then at all. No controls."""
    places = (*range(model.config.n_invocations), None)
    zeros = [zero(part, where) for part in SWITCHED if part in parts(model.config) for where in places]
    whole, changed = losses_from(model, ids, [((one,), one.where or 0) for one in zeros])
    return [Effect(one.name, whole, loss, whole[None][:0]) for one, loss in zip(zeros, changed)]


def losses_from(model: Zamba, ids: Tensor, changes: Sequence[tuple[Sequence[Intervention], int]]) -> tuple[Tensor, list[Tensor]]:
    """The next-token loss, (b, l - 1), of the model and under each of some changes, bitwise what `next_token_loss` gives.

    changes: interventions, and the first invocation that they reach. The layers before that one run once for all.
    """
    depths = model.config.hybrid_layers
    streams = [f"layers.{depth}.resid_in" for depth in depths]
    trace = run(model, ids, keep=["logits", *streams])
    found = []
    for several, first in changes:
        start = known_until(depths[first], trace[streams[first]])
        found.append(next_token_loss(intervene(model, *several, start), ids))
    return token_losses(trace["logits"], ids), found


def _pass(model: Intervened, ids: Tensor, mask: Tensor | None, keep: tuple[str, ...]) -> Trace:
    trace = Trace(keep=("logits", *keep))
    model(ids, mask, trace)
    return trace


@dataclass(frozen=True, eq=False)
class SameCuts(Intervention):
    """Nothing, done in the same pieces as the interventions given."""

    others: tuple[Intervention, ...]

    def cut(self, position: int) -> bool:
        return any(one.cut(position) for one in self.others)


@dataclass(frozen=True, eq=False)
class Nudge(Intervention):
    """At each point and token: a value at a given distance from the whole model's, in a random direction."""

    values: dict[str, Tensor] = field(default_factory=dict)  # point -> (b, l, ...)

    @property
    def name(self) -> str:
        return "a random change of the same size"

    @staticmethod
    def between(before: Trace, after: Trace, points: Sequence[str], seed: int) -> Nudge:
        """As far from `before` as `after` is, at each point."""
        generator = torch.Generator().manual_seed(seed)
        return Nudge({p: nudged(before[p], after[p], generator) for p in points})

    def bind(self, model: Zamba) -> Edits:
        return lambda start, cache: {p: partial(_given, values=values, start=start) for p, values in self.values.items()}


def nudged(before: Tensor, after: Tensor, generator: torch.Generator) -> Tensor:
    """before + |after - before| * a random direction, for each (b, l)."""
    wide = torch.promote_types(before.dtype, torch.float32)
    noise = torch.randn(before.shape, generator=generator, dtype=wide).to(before.device).flatten(2)
    distance = (after.to(wide) - before.to(wide)).flatten(2).norm(dim=-1, keepdim=True)
    moved = before.to(wide).flatten(2) + distance * noise / noise.norm(dim=-1, keepdim=True)
    return moved.view(before.shape).to(before.dtype)


def _given(value: Tensor, values: Tensor, start: int) -> Tensor:
    return values[:, start : start + value.shape[1]].expand_as(value)
