"""Fair arms: widths adjusted until parameters, FLOPs a token or the bytes that decoding carries agree with the base's.

    matched = match(arm, base, Match("params"))
    matched.config, matched.off, matched.ok         # -0.004: 0.4 % below the base; ok: within the tolerance

Parameters count shared weights once, FLOPs count every invocation; both by the formulas of `config.cost`. A width is turned
alone, in the order of the knobs; where no one width does it, two are. What still does not fit is told, not hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from zamba_lab.config import ZambaConfig

TOLERANCE = {"params": 0.01, "flops": 0.02, "state": 0.02}
KNOBS = {"params": ("d_mlp", "d_model"), "flops": ("d_mlp", "d_model"), "state": ("d_state", "d_model")}
TURNED = ("d_mlp", "d_model", "headdim", "d_state", "attn_head_dim", "n_layers")  # fields that a match may change
REACH = 4  # a width may become this many times larger or smaller


@dataclass(frozen=True)
class Match:
    """What agrees. by: params, flops or state. tolerance: share of the base's; None: 1 % of parameters, 2 % else.

    knobs: widths that may be turned, the first before the others: d_mlp, d_model (with the numbers of heads as they are),
    d_state, attn_head_dim, n_layers. () takes the usual ones. Raises ValueError if it knows no such quantity or width.
    """

    by: str
    tolerance: float | None = None
    knobs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.by not in TOLERANCE:
            raise ValueError(f"arms are matched by {', '.join(TOLERANCE)}: got {self.by!r}")
        object.__setattr__(self, "tolerance", TOLERANCE[self.by] if self.tolerance is None else float(self.tolerance))
        object.__setattr__(self, "knobs", tuple(self.knobs) or KNOBS[self.by])
        if unknown := [knob for knob in self.knobs if knob not in TURN]:
            raise ValueError(f"widths that may be turned are {', '.join(TURN)}: got {', '.join(unknown)}")
        if not 0 < self.tolerance < 1:
            raise ValueError(f"tolerance is a share, above 0 and below 1: got {self.tolerance}")


@dataclass(frozen=True)
class Matched:
    """config: the arm as it will be trained. off: its quantity over the base's, less 1. turned: width -> (before, after)."""

    config: ZambaConfig
    off: float
    ok: bool
    turned: dict[str, tuple[int | None, int | None]]


def quantity(config: ZambaConfig, by: str, context: int) -> float:
    """Parameters, forward FLOPs of one token at `context`, or bytes of the cache after `context` tokens in float32."""
    return {
        "params": lambda: config.n_params,
        "flops": lambda: config.flops_per_token(context),
        "state": lambda: config.cache_bytes(context, dtype=torch.float32),
    }[by]()


def match(arm: ZambaConfig, base: ZambaConfig, how: Match, context: int) -> Matched:
    """The arm with the smallest change of widths that agrees with the base; the nearest there is if none does.

    context: positions that a token sees, in FLOPs and bytes.
    """
    target = quantity(base, how.by, context)

    def off(config: ZambaConfig) -> float:
        return quantity(config, how.by, context) / target - 1

    best = arm
    for tried in (lambda: [arm], lambda: _single(arm, how, off), lambda: _double(arm, how, off)):
        found = min([best, *tried()], key=lambda config: abs(off(config)))
        best = found if abs(off(found)) < abs(off(best)) else best
        if abs(off(best)) <= how.tolerance:
            break
    turned = {name: (getattr(arm, name), getattr(best, name)) for name in TURNED if getattr(arm, name) != getattr(best, name)}
    return Matched(best, off(best), abs(off(best)) <= how.tolerance, turned)


def _single(arm: ZambaConfig, how: Match, off: Callable[[ZambaConfig], float]) -> Iterator[ZambaConfig]:
    """The arm with one width turned to where the quantity fits best; the first width that does it ends the search."""
    for knob in how.knobs:
        for config in _nearest(arm, knob, off):
            yield config
            if abs(off(config)) <= how.tolerance:
                return


def _double(arm: ZambaConfig, how: Match, off: Callable[[ZambaConfig], float]) -> Iterator[ZambaConfig]:
    """One width coarse, another fine: each step of the later knobs, the least far from the arm first, with each other knob."""
    for coarse in how.knobs[::-1]:
        for value in sorted(TURN[coarse].steps(arm), key=lambda value: abs(value - TURN[coarse].get(arm))):
            for start in TURN[coarse].set(arm, value):
                for fine in how.knobs:
                    for config in _nearest(start, fine, off) if fine != coarse else ():
                        yield config
                        if abs(off(config)) <= how.tolerance:
                            return


def _nearest(arm: ZambaConfig, knob: str, off: Callable[[ZambaConfig], float]) -> list[ZambaConfig]:
    """The two values of a width between which the quantity passes the base's, by bisection: it grows with every width."""
    values = TURN[knob].steps(arm)
    low, high = 0, len(values) - 1
    made: dict[int, list[ZambaConfig]] = {}

    def at(k: int) -> list[ZambaConfig]:
        if k not in made:
            made[k] = TURN[knob].set(arm, values[k])
        return made[k]

    while high - low > 1:
        middle = (low + high) // 2
        if not at(middle):  # no such model: look for the next one that there is
            middle = next((k for k in range(middle + 1, high) if at(k)), low)
            if middle == low:
                high = next((k for k in range((low + high) // 2, low, -1) if at(k)), low)
                continue
        low, high = (middle, high) if off(at(middle)[0]) < 0 else (low, middle)
    return [config for k in {low, high} if values for config in at(k)]


@dataclass(frozen=True)
class Turn:
    """A width: what it is in a config, the values it may take, and the config with one of them ([] if there is none)."""

    get: Callable[[ZambaConfig], int]
    steps: Callable[[ZambaConfig], list[int]]
    set: Callable[[ZambaConfig, int], list[ZambaConfig]]


def _made(config: ZambaConfig, **changes: Any) -> list[ZambaConfig]:
    try:
        return [replace(config, **changes)]
    except ValueError:
        return []


def _around(value: int, by: int = 1) -> list[int]:
    return [k * by for k in range(max(1, value // REACH // by), value * REACH // by + 1)]


def _field(name: str, here: Callable[[ZambaConfig], bool]) -> Turn:
    return Turn(
        lambda c: getattr(c, name), lambda c: _around(getattr(c, name)) if here(c) else [], lambda c, value: _made(c, **{name: value})
    )


def _with_width(c: ZambaConfig, value: int) -> list[ZambaConfig]:
    """Another d_model, the numbers of heads and an MLP's proportions as they were."""
    changes: dict[str, Any] = {"d_model": value}
    if c.mixer != "attention":
        if value * c.expand % c.ssm_heads:
            return []
        changes["headdim"] = value * c.expand // c.ssm_heads
    return _made(c, **changes)


def _attends(c: ZambaConfig) -> bool:
    return c.mixer == "attention" or bool(c.hybrid_layers)


def _head_dims(c: ZambaConfig) -> list[int]:
    return _around(c.head_dim, 2 if c.rope_theta is not None else 1) if _attends(c) else []


TURN: dict[str, Turn] = {
    "d_mlp": _field("d_mlp", _attends),
    "d_model": Turn(lambda c: c.d_model, lambda c: _around(c.d_model), _with_width),
    "d_state": _field("d_state", lambda c: c.mixer != "attention"),
    "attn_head_dim": Turn(lambda c: c.head_dim, _head_dims, lambda c, value: _made(c, attn_head_dim=value)),
    "n_layers": Turn(lambda c: c.n_layers, lambda c: _around(c.n_layers), lambda c, value: _made(c, n_layers=value)),
}


def table(arms: Iterable[tuple[str, Matched]], by: str | None, context: int) -> list[dict[str, Any]]:
    """A row for each arm: what it costs by every measure, what was turned, and how far from the base it is left.

    arms: name, and the arm as matched.
    """
    return [
        {
            "arm": name,
            **{kind: quantity(one.config, kind, context) for kind in TOLERANCE},
            "matched by": by or "nothing",
            "off": one.off,
            "ok": one.ok,
            "turned": ", ".join(f"{knob} {before} -> {after}" for knob, (before, after) in one.turned.items()),
        }
        for name, one in arms
    ]
