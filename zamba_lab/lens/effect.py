"""What an intervention does to a measure of the model, beside what as large a random change would do.

A number for a part says little alone: any push of that size might do as much. So the default comes with controls: at each
place where the change enters the rest of the model (`outlets`), and at each token, the model's own value is moved in a
random direction by exactly the distance that the intervention moved it. A direction of DIRECTIONS is isotropic, or the
difference of what comes there at two other tokens: the layers behind a part are used to such differences, and not to every
direction of space.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zamba_lab.lens.interventions import Edits, Intervened, Intervention, MemoryChange, Patch, intervene
from zamba_lab.lens.parts import PARTS, numbers, parts
from zamba_lab.lens.passes import next_token_loss, predicted, run, token_losses
from zamba_lab.lens.replace import DONE, Recorded, Replace, Text
from zamba_lab.model import Zamba
from zamba_lab.trace import Trace

Metric = Callable[[Tensor, Tensor], Tensor]  # logits (b, l, v), ids (b, l) -> (b, ...)
DIRECTIONS = ("isotropic", "own")  # of a control: any, or from one output of the same part to another
SWITCHED = ("invocation", "adapter", "concat")  # the parts that belong to one invocation of a shared block


@dataclass(frozen=True, eq=False)
class Effect:
    """A measure of the unchanged model, of the changed one, and under controls. Axis b is the prompts, the rest the measure's own."""

    name: str
    baseline: Tensor  # (b, ...)
    changed: Tensor  # (b, ...)
    control: Tensor  # (c, b, ...), c controls, perhaps none
    real: Tensor | None = None  # (b, the measure's second axis) bool, False where it is of padding; None: nowhere

    @property
    def change(self) -> Tensor:
        """(b, ...); of a loss, > 0 where the part helped."""
        return self.changed - self.baseline

    @property
    def control_change(self) -> Tensor:
        """(c, b, ...)"""
        return self.control - self.baseline

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
        unknown = torch.full(values.shape[1:], torch.nan, dtype=values.dtype)
        return unknown, unknown
    flat = values.reshape(len(values), -1)
    low, high = flat[0].clone(), flat[0].clone()
    differ = (flat != flat[0]).any(0)
    if differ.any():
        intervals = stats.bootstrap(
            (flat[:, differ].numpy(),),
            np.mean,
            n_resamples=resamples,
            confidence_level=level,
            axis=0,
            batch=max(1, 10**7 // flat.numel()),
            rng=np.random.default_rng(seed),
        )
        low[differ], high[differ] = map(torch.from_numpy, intervals.confidence_interval)
    return low.view(values.shape[1:]), high.view(values.shape[1:])


def divergence_from(baseline: Tensor) -> Metric:
    """The measure KL(baseline || changed) in nats, (b, l), from the untouched model's logits."""
    wide = torch.promote_types(baseline.dtype, torch.float32)
    before = baseline.to(wide).log_softmax(-1)
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
    direction: str = "own",
) -> Effect:
    """Measure the model with and without interventions, and with random changes of the same size.

    Args:
        ids: (b, l) prompts. mask: (b, l), see `passes`. Of a measure with l numbers a prompt, or l - 1, each for a token and
            the next, the intervals leave out those of padding; any other measure is to leave padding out itself.
        interventions: one or several, together in force.
        metric: from logits (b, l, v) and ids to (b, ...), such as `token_losses` or `divergence_from(logits)`.
        controls: how many; each is a pass. direction: of DIRECTIONS; "own", the harder one, if left out: any other direction of
            space hardly moves a model, and whatever is compared with it looks like much.

    All passes take the same route through the same operations, so that what the interventions do not reach is equal, bitwise.
    Raises ValueError if the model lacks a part, sizes do not fit, or a memory is changed at a position that ids do not reach.
    """
    several = (interventions,) if isinstance(interventions, Intervention) else tuple(interventions)
    measure = partial(token_losses, mask=mask) if metric is token_losses else metric
    changed = intervene(model, *several)
    changed.check_text(ids)
    cuts = [Cut(each.at) for each in several if isinstance(each, MemoryChange)]
    outlets = tuple(dict.fromkeys(p for each in several for p in each.outlets(changed.config)))
    keep = ("logits", *outlets, *changed.edited())
    before, after = (run(each, ids, keep=keep, mask=mask) for each in (intervene(model, *cuts), changed))
    baseline, under = measure(before["logits"], ids), []
    for i in range(controls):
        nudge = Nudge.between(before, after, outlets, seed + i, direction, mask)
        under.append(measure(run(intervene(model, nudge, *cuts), ids, keep=keep, mask=mask)["logits"], ids))
    name = " and ".join(each.name for each in several) or "nothing"
    control = torch.stack(under) if under else baseline[None][:0]
    return Effect(name, baseline, measure(after["logits"], ids), control, real_numbers(mask, baseline))


def real_numbers(mask: Tensor | None, measured: Tensor) -> Tensor | None:
    """Which numbers of a measure (b, ...) are of tokens only: one a token, or one for it and the next."""
    if mask is None or measured.ndim < 2:
        return None
    return {mask.shape[1]: mask.bool(), mask.shape[1] - 1: predicted(mask)}.get(measured.shape[1])


def switch_off_each(
    model: Zamba,
    ids: Tensor,
    how: str = "mean",
    reference: Tensor | None = None,
    mask: Tensor | None = None,
    reference_mask: Tensor | None = None,
) -> list[Effect]:
    """What each part of the shared blocks is worth: SWITCHED replaced at each invocation alone, then at all. No controls.

    Zero misleads, as the module `replace` explains.

    Args:
        ids: (b, l), l >= 2. mask: (b, l), see `passes`.
        how: "mean", "resample" or "zero".
        reference: (b', l') ids whose mean, or whose values at the same position, a part is given; not for "zero". None: for a
            mean ids themselves, to resample from the prompt after each, the first after the last.
        reference_mask: (b', l'), that of the reference; None: as in `mean` and `resample`.
    """
    replacement, c = Replacement(model, ids, how, SWITCHED, reference, mask, reference_mask), model.config
    several = [replacement(part, where) for part in SWITCHED if part in parts(c) for where in (*range(c.n_invocations), None)]
    baseline = next_token_loss(model, ids, mask=mask)
    changed = [next_token_loss(intervene(model, each), ids, mask=mask) for each in several]
    return [Effect(each.name, baseline, loss, baseline[None][:0], real_numbers(mask, baseline)) for each, loss in zip(several, changed)]


class Replacement:
    """Makes interventions that replace parts of a model alike, from one pass over the reference. Arguments as `switch_off_each`."""

    def __init__(
        self,
        model: Zamba,
        ids: Tensor,
        how: str,
        replaced: Sequence[str],
        reference: Tensor | None,
        mask: Tensor | None,
        reference_mask: Tensor | None,
    ):
        if how not in DONE or (how == "zero" and reference is not None):
            raise ValueError(f"how must be one of {', '.join(DONE)}, and zero needs no reference: got {how!r}")
        if reference is None and how == "resample":
            if len(ids) < 2:
                raise ValueError("to resample each prompt from another, two or more are needed, or a reference: got 1 prompt")
            text = Text(ids.roll(-1, 0), None if mask is None else mask.roll(-1, 0))
        else:
            text = Text(ids, mask) if reference is None else Text(reference, reference_mask)
        aligned, self.how, self.source = how == "resample", how, None
        if aligned:
            text.check_pass(*ids.shape)
        if how != "zero":
            there = [part for part in replaced if part in parts(model.config)]
            points = [p for part in there for i in numbers(model.config, part, None) for p in PARTS[part].points(model.config, i)]
            self.source = Recorded(*text.reader(model, points, aligned)(mask))

    def __call__(self, part: str, where: int | None, head: int | None = None) -> Replace:
        return Replace(part, where, self.how, self.source, head)


class Cut(MemoryChange):
    """Nothing, but the pass is cut at `at`."""

    name: str

    def __init__(self, at: int):
        self.at, self.name = at, f"a cut at token {at}"


@dataclass(frozen=True, eq=False)
class Nudge(Patch):
    """At each point and token: a value at a given distance from the unchanged model's, in a random direction."""

    values: dict[str, Tensor] = field(default_factory=dict)  # point -> (b, l, ...)
    name: str = "a random change of the same size"

    @staticmethod
    def between(before: Trace, after: Trace, points: Sequence[str], seed: int, direction: str, mask: Tensor | None = None) -> "Nudge":
        """As far from `before` as `after` is, at each point. mask: (b, l), that of the passes."""
        if direction not in DIRECTIONS:
            raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}: got {direction!r}")
        generator = torch.Generator().manual_seed(seed)
        return Nudge({p: nudged(before[p], after[p], generator, direction, mask) for p in points})

    def edits(self, model: Zamba) -> Edits:
        return lambda piece: {p: partial(_set, values=values[:, piece.start :]) for p, values in self.values.items()}


def nudged(before: Tensor, after: Tensor, generator: torch.Generator, direction: str, mask: Tensor | None = None) -> Tensor:
    """before + |after - before| * a random direction, for each (b, l); "own" is isotropic where two outputs do not differ.

    mask: (b, l); what is at padding is no output of the part.
    """
    wide = torch.promote_types(before.dtype, torch.float32)
    value = before.to(wide).flatten(2)
    noise = torch.randn(before.shape, generator=generator, dtype=wide).to(before.device).flatten(2)
    if direction == "own":
        outputs = value.flatten(0, 1) if mask is None else value[mask.bool()]
        first, second = torch.randint(len(outputs), (2, *value.shape[:2]), generator=generator).to(before.device)
        between = outputs[first] - outputs[second]
        noise = torch.where(between.norm(dim=-1, keepdim=True) > 0, between, noise)
    distance = (after.to(wide) - before.to(wide)).flatten(2).norm(dim=-1, keepdim=True)
    moved = value + distance * noise / noise.norm(dim=-1, keepdim=True)
    return moved.view(before.shape).to(before.dtype)


def _set(value: Tensor, values: Tensor) -> Tensor:
    return values[:, : value.shape[1]].expand_as(value)
