"""Fair arms: widths adjusted until parameters, FLOPs a token or the bytes that decoding carries agree with the base's.

    matched = match(arm, base, Match("params"), context=512)
    matched.config, matched.off, matched.ok         # -0.004: 0.4 % below the base; ok: within the tolerance

Parameters count shared weights once, FLOPs count every invocation; both by the formulas of `config.cost`. One width is adjusted, the
first of the knobs that does it; where no single width does, two are. What still does not fit is reported.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from zamba_lab.config import ZambaConfig

TOLERANCE = {"params": 0.01, "flops": 0.02, "state": 0.02}
KNOBS = {"params": ("d_mlp", "d_model"), "flops": ("d_mlp", "d_model"), "state": ("d_state", "d_model")}
WIDTHS = ("d_mlp", "d_model", "d_state", "attn_head_dim", "n_layers")  # what may be a knob
REACH = 4  # a width may become this many times larger or smaller
MAX_WIDTH = 100_000  # of a model whose widths are searched


@dataclass(frozen=True)
class Match:
    """What agrees. by: params, flops or state. tolerance: share of the base's; None: 1 % of parameters, 2 % else.

    knobs: widths that may be adjusted, the first before the others: d_mlp, d_model (with the numbers of heads as they are),
    d_state, attn_head_dim, n_layers. (): the usual ones. Raises ValueError if it knows no such quantity or width.
    """

    by: str
    tolerance: float | None = None
    knobs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.by not in TOLERANCE:
            raise ValueError(f"arms are matched by {', '.join(TOLERANCE)}: got {self.by!r}")
        object.__setattr__(self, "tolerance", TOLERANCE[self.by] if self.tolerance is None else float(self.tolerance))
        object.__setattr__(self, "knobs", tuple(self.knobs) or KNOBS[self.by])
        if unknown := [knob for knob in self.knobs if knob not in WIDTHS]:
            raise ValueError(f"widths that may be adjusted are {', '.join(WIDTHS)}: got {', '.join(map(str, unknown))}")
        if not 0 < self.tolerance < 1:
            raise ValueError(f"tolerance is a share, above 0 and below 1: got {self.tolerance}")


@dataclass(frozen=True)
class Matched:
    """config: the arm as it will be trained. off: its quantity over the base's, less 1. adjusted: width -> (before, after)."""

    config: ZambaConfig
    off: float
    ok: bool
    adjusted: dict[str, tuple[int | None, int | None]]


def quantity(config: ZambaConfig, by: str, context: int) -> float:
    """Parameters, forward FLOPs of one token at `context`, or bytes of the cache after `context` tokens in float32."""
    if by == "state":
        return config.cache_bytes(context, dtype=torch.float32)
    return config.n_params if by == "params" else config.flops_per_token(context)


def match(arm: ZambaConfig, base: ZambaConfig, how: Match, context: int) -> Matched:
    """The arm with the smallest change of widths that agrees with the base; the nearest there is if none does.

    context: positions that a token sees, in FLOPs and bytes. Raises ValueError if a width to be adjusted is above MAX_WIDTH.
    """
    target = quantity(base, how.by, context)

    def off(config: ZambaConfig) -> float:
        return quantity(config, how.by, context) / target - 1

    best = arm
    for candidates in (_one_width, _two_widths):
        if abs(off(best)) > how.tolerance:
            best = min([best, *candidates(arm, how, off)], key=lambda config: abs(off(config)))
    names = (*WIDTHS[:2], "headdim", *WIDTHS[2:])
    adjusted = {name: (getattr(arm, name), getattr(best, name)) for name in names if getattr(arm, name) != getattr(best, name)}
    return Matched(best, off(best), abs(off(best)) <= how.tolerance, adjusted)


def _one_width(arm: ZambaConfig, how: Match, off: Callable[[ZambaConfig], float]) -> Iterator[ZambaConfig]:
    """The arm with one width where the quantity fits best; the first width that does it ends the search."""
    for knob in how.knobs:
        for config in _nearest(arm, knob, off):
            yield config
            if abs(off(config)) <= how.tolerance:
                return


def _two_widths(arm: ZambaConfig, how: Match, off: Callable[[ZambaConfig], float]) -> Iterator[ZambaConfig]:
    """One width coarse, another fine: each value of the later knobs, the least far from the arm first, with each other knob."""
    for coarse in how.knobs[::-1]:
        for value in sorted(_values(arm, coarse), key=lambda value: abs(value - _width(arm, coarse))):
            start = _with_width(arm, coarse, value)
            for fine in how.knobs if start else ():
                for config in _nearest(start, fine, off) if fine != coarse else ():
                    yield config
                    if abs(off(config)) <= how.tolerance:
                        return


def _nearest(arm: ZambaConfig, knob: str, off: Callable[[ZambaConfig], float]) -> list[ZambaConfig]:
    """The two values of a width between which the quantity passes the base's, by bisection: it grows with every width."""
    values = _values(arm, knob)
    made: dict[int, ZambaConfig | None] = {}

    def at(k: int) -> ZambaConfig | None:
        if k not in made:
            made[k] = _with_width(arm, knob, values[k])
        return made[k]

    low, high = 0, len(values) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if not at(middle):  # no such model: look for the next one that there is
            middle = next((k for k in range(middle + 1, high) if at(k)), low)
            if middle == low:
                high = next((k for k in range((low + high) // 2, low, -1) if at(k)), low)
                continue
        low, high = (middle, high) if off(at(middle)) < 0 else (low, middle)
    return [at(k) for k in {low, high} if values and at(k)]


def _width(config: ZambaConfig, knob: str) -> int:
    return config.head_dim if knob == "attn_head_dim" else getattr(config, knob)


def _values(config: ZambaConfig, knob: str) -> range:
    """The values that a width may have; none where the model has no such width."""
    attends = config.mixer == "attention" or bool(config.hybrid_layers)
    if not {"d_mlp": attends, "attn_head_dim": attends, "d_state": config.mixer != "attention"}.get(knob, True):
        return range(0)
    if (width := _width(config, knob)) > MAX_WIDTH:
        raise ValueError(f"arms are matched by widths of at most {MAX_WIDTH:,}: got {knob}={width:,}")
    step = 2 if knob == "attn_head_dim" and config.rope_theta is not None else 1  # rotary positions pair channels
    return range(max(1, width // REACH // step) * step, width * REACH + 1, step)


def _with_width(config: ZambaConfig, knob: str, value: int) -> ZambaConfig | None:
    """The config with another width, the numbers of heads as they were; None if there is no such model."""
    changes = {knob: value}
    if knob == "d_model" and config.mixer != "attention":
        if value * config.expand % config.ssm_heads:
            return None
        changes["headdim"] = value * config.expand // config.ssm_heads
    try:
        return replace(config, **changes)
    except ValueError:
        return None


def table(arms: Iterable[tuple[str, Matched]], by: str | None, context: int) -> list[dict[str, Any]]:
    """A row for each (name, matched arm): what it costs by every measure, what was adjusted, and how far from the base it is left."""
    return [
        {
            "arm": name,
            **{kind: quantity(matched.config, kind, context) for kind in TOLERANCE},
            "matched by": by or "nothing",
            "off": matched.off,
            "ok": matched.ok,
            "adjusted": ", ".join(f"{knob} {before} -> {after}" for knob, (before, after) in matched.adjusted.items()),
        }
        for name, matched in arms
    ]
