"""What an arm may change (axes), and the arms of a study: one factor at a time, in grids, or by name.

An axis turns a level, in the words of the question, into fields of ZambaConfig. Every field is an axis of its own name, too
(`d_state: 32`).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

from zamba_lab.checkpoints.config_read import meaning
from zamba_lab.config import ZambaConfig

BASE = "base"
MAX_ARMS = 10_000  # of a study: a short file can ask for any number
THETA = 10000.0  # of rotary positions where the base has none
TAPS = 4  # of a convolution where the base has none


class StudyError(ValueError):
    """Something in a study that does not fit. place: where in the study it is asked for, as the keys that lead there."""

    def __init__(self, message: str, place: tuple):
        super().__init__(message)
        self.place = place


@dataclass(frozen=True)
class Axis:
    """levels: what may be asked for, in words. fields: of a base and a level, the fields that change. switch: on or off only."""

    levels: str
    fields: Callable[[ZambaConfig, Any], dict[str, Any]]
    switch: bool = False


@dataclass(frozen=True)
class Arm:
    """One architecture of a study.

    name: in its tables. family: the contrasts that are corrected together: those of one axis, one grid, or all named arms.
    """

    name: str
    family: str
    config: ZambaConfig


def sharing(base: ZambaConfig, level: Any) -> dict[str, Any]:
    """How attention is shared: the distinct blocks and their order over the base's invocations."""
    k = base.n_invocations
    if level == "transformer":
        return {"mixer": "attention", "n_shared_blocks": 0, "lora_rank": 0, "lora_rank_qkv": 0}
    if level == 0:
        return {"n_shared_blocks": 0}
    _rule(k > 0, f"there must be invocations to share a block, or none: the base has hybrid_layers=(), got {level!r}")
    if level == "unshared" or isinstance(level, int):
        return {"n_shared_blocks": k if level == "unshared" else level, "block_order": None}
    _rule(
        isinstance(level, str) and level.isalpha() and level.isupper(),
        f"sharing must be 0, a number of blocks, an order such as ABAB or AABB, unshared or transformer: got {level!r}",
    )
    order = _order(level, k)
    names = sorted(set(order))
    return {"n_shared_blocks": len(names), "block_order": tuple(names.index(name) for name in order)}


def _order(level: str, k: int) -> str:
    """The block of each of k invocations: a pattern of that length, or ABAB alternating, or AABB in two halves."""
    if level == "ABAB":
        return ("AB" * k)[:k]
    if level == "AABB":
        _rule(k >= 4, f"AABB differs from ABAB from 4 invocations on: the base has {k}")
        return "A" * (k - k // 2) + "B" * (k // 2)
    _rule(len(level) == k, f"an order names the block of each invocation: got {level!r} for {k} invocations")
    return level


def _depths(base: ZambaConfig, depths: tuple[int, ...]) -> dict[str, Any]:
    """Invocations at these depths; where there are fewer than blocks, fewer blocks."""
    _rule(base.mixer != "attention", "a transformer has no shared block to place")
    return {"hybrid_layers": depths, "n_shared_blocks": min(max(1, base.n_shared_blocks), len(depths)), "block_order": None}


def period(base: ZambaConfig, level: Any) -> dict[str, Any]:
    _rule(isinstance(level, int) and 1 <= level <= base.n_layers, f"period must be a number of layers in 1..{base.n_layers}: got {level!r}")
    return _depths(base, tuple(range(level - 1, base.n_layers, level)))


def placement(base: ZambaConfig, level: Any) -> dict[str, Any]:
    k, n = base.n_invocations, base.n_layers
    if isinstance(level, list | tuple):
        return _depths(base, tuple(level))
    where = {"first": tuple(range(k)), "last": tuple(range(n - k, n)), "even": tuple((i + 1) * n // k - 1 for i in range(k)) if k else ()}
    _rule(
        level in where and k > 0,
        f"placement must be a list of depths, or first, last or even for the base's {k} invocations: got {level!r}",
    )
    return _depths(base, where[level])


def attention_scale(base: ZambaConfig, level: Any) -> dict[str, Any]:
    """ "usual": head_dim^-0.5, whether the embeddings are concatenated or not."""
    if level == "usual":
        return {"attn_gain": (base.d_model / base.d_attn) ** 0.5}
    _rule(
        level == "released" or isinstance(level, int | float) and level > 0,
        f"attention_scale must be released, usual, or a factor on the released one: got {level!r}",
    )
    return {"attn_gain": 1.0 if level == "released" else float(level)}


def norm_grouping(base: ZambaConfig, level: Any) -> dict[str, Any]:
    _rule(base.mixer == "mamba2", f"only Mamba-2 ends in a gated norm: the base's mixer is {base.mixer}")
    return {"norm_groups": {"one": 1, "heads": base.ssm_heads}.get(level, level)}


def _switch(name: str, on: Callable[[ZambaConfig], Any], off: Any) -> Axis:
    return Axis("on, off", lambda base, level: {name: on(base) if level else off}, switch=True)


AXES: dict[str, Axis] = {
    "mixer": Axis("mamba2, mamba1", lambda base, level: {"mixer": level}),
    "sharing": Axis("0, 1, 2, ABAB, AABB, any order such as AAB, unshared, transformer", sharing),
    "concat": _switch("concat_embedding", lambda base: True, False),
    "period": Axis("layers from one invocation to the next", period),
    "placement": Axis("depths, or first, last, even", placement),
    "rope": _switch("rope_theta", lambda base: base.rope_theta or THETA, None),
    "conv": _switch("d_conv", lambda base: base.d_conv or TAPS, 0),
    "link": Axis("mixer, stream", lambda base, level: {"link_into": level}),
    "attention_scale": Axis("released, usual, or a factor", attention_scale),
    "norm_grouping": Axis("one, heads, or a number of groups", norm_grouping),
}
FIELDS = tuple(field.name for field in fields(ZambaConfig))
OFF = {"sharing": 0, "n_shared_blocks": 0, "lora_rank": 0, "lora_rank_qkv": 0, "d_conv": 0, "rope_theta": None}  # what `off` means


def changed(base: ZambaConfig, axis: str, level: Any) -> ZambaConfig:
    """The base with one axis at a level. Raises ValueError if there is no such axis, or no such model."""
    if axis not in AXES and axis not in FIELDS:
        raise ValueError(f"no such axis: {axis!r}; there are {', '.join(AXES)}, and every field of a model: {', '.join(FIELDS)}")
    level = _understood(base, axis, tuple(level) if isinstance(level, list) else level)
    try:
        return replace(base, **(AXES[axis].fields(base, level) if axis in AXES else {axis: level}))
    except TypeError as error:
        raise ValueError(f"{axis} cannot be {level!r}: {error}") from error


def _understood(base: ZambaConfig, axis: str, level: Any) -> Any:
    """The level, `off` as what it means on this axis. Raises ValueError for on or off where there is no such thing."""
    switch = AXES[axis].switch if axis in AXES else isinstance(getattr(base, axis), bool)
    if switch:
        level = {"on": True, "off": False}.get(level, level) if isinstance(level, str) else level
        _rule(isinstance(level, bool), f"the axis is a switch, on or off: got {level!r}")
    elif level is False and axis in OFF:
        return OFF[axis]
    elif any(isinstance(part, bool) for part in (level if isinstance(level, tuple) else (level,))):
        raise ValueError(f"{axis} is not a switch: got {level!r}" + (f"; it may be {AXES[axis].levels}" if axis in AXES else ""))
    return level


def identity(config: ZambaConfig) -> dict[str, Any]:
    """What the model computes and how it begins: equal for two configs that are one arm."""
    start = {"init": config.init}
    if config.init in ("small", "matching") and config.hybrid_layers:
        start["link_gain"] = config.link_gain
    return meaning(config) | start


def _rule(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def arms_of(
    base: ZambaConfig,
    axes: Mapping[str, Iterable[Any]],
    arms: Mapping[str, Mapping[str, Any]],
    grids: Iterable[Mapping[str, Iterable[Any]]],
) -> tuple[Arm, ...]:
    """The base first, then all others. An axis or a grid may name the base's own level, which is the base.

    Raises StudyError if an axis is unknown, a level not to be had, two arms are one, or there are more than MAX_ARMS.
    """
    made = [Arm(BASE, BASE, base)]
    names: dict[tuple, str] = {_key(base): BASE}
    for name, family, changes, place, may_repeat in (*_of_axes(axes), *_of_grids(grids), *_by_name(arms)):
        config = _with_changes(base, changes, place)
        if (same := names.get(_key(config))) is None:
            names[_key(config)] = name
            made.append(Arm(name, family, config))
        elif not may_repeat(same):
            raise StudyError(f"arm {name!r} is the same model as {same!r}", place)
    if len({arm.name for arm in made}) < len(made):
        raise StudyError(f"each arm needs a name of its own: got {[arm.name for arm in made]}", ("arms",))
    return tuple(made)


# name, family, changes, place in the study, and whether it may be the same model as an arm of that name
Asked = tuple[str, str, Mapping[str, Any], tuple, Callable[[str], bool]]


def _of_axes(axes: Mapping[str, Iterable[Any]]) -> Iterator[Asked]:
    for axis, levels in axes.items():
        for index, level in enumerate(_levels(levels, ("axes", axis))):
            yield f"{axis}={level_name(level)}", axis, {axis: level}, ("axes", axis, index), lambda name: name == BASE


def _of_grids(grids: Iterable[Mapping[str, Iterable[Any]]]) -> Iterator[Asked]:
    for number, grid in enumerate(grids):
        if not isinstance(grid, Mapping):
            raise StudyError(f"a grid has axes, each with a list of levels: got {grid!r}", ("grid", number))
        levels = [[(axis, level) for level in _levels(levels, ("grid", number, axis))] for axis, levels in grid.items()]
        if (count := math.prod(map(len, levels))) > MAX_ARMS:
            raise StudyError(f"a study has at most {MAX_ARMS:,} arms: this grid has {count:,}", ("grid", number))
        for point in product(*levels):
            name = ", ".join(f"{axis}={level_name(level)}" for axis, level in point)
            yield name, " x ".join(grid), dict(point), ("grid", number), lambda name: True  # an edge of the grid may be an axis


def _by_name(arms: Mapping[str, Mapping[str, Any]]) -> Iterator[Asked]:
    for name, changes in arms.items():
        if not isinstance(changes, Mapping) or not changes:
            raise StudyError(f"arm {name!r} must say what it changes, as axis: level; got {changes!r}", ("arms", name))
        if not level_name(name).isprintable():
            raise StudyError(f"an arm's name is one line of printable text: got {name!r}", ("arms", name))
        yield level_name(name), "arms", changes, ("arms", name), lambda name: False


def level_name(level: Any) -> str:
    """A level as it stands in a name."""
    if isinstance(level, bool):
        return "on" if level else "off"
    return "+".join(map(str, level)) if isinstance(level, list | tuple) else str(level)


def _levels(levels: Any, place: tuple) -> list[Any]:
    if not isinstance(levels, list | tuple) or not levels:
        raise StudyError(f"an axis takes a list of levels, at least one: got {levels!r}", place)
    return list(levels)


def _with_changes(base: ZambaConfig, changes: Mapping[str, Any], place: tuple) -> ZambaConfig:
    """The base with all the changes, one after the other."""
    config = base
    for axis, level in changes.items():
        config = placed((*place, axis) if len(changes) > 1 or place[0] == "arms" else place, changed, config, axis, level)
    return config


def placed(place: tuple, make: Callable, *arguments: Any, **more: Any) -> Any:
    """make(...), whose ValueError becomes a StudyError with a place."""
    try:
        return make(*arguments, **more)
    except StudyError as error:
        raise StudyError(str(error), place + error.place) from error
    except (ValueError, TypeError) as error:
        raise StudyError(str(error), place) from error


def _key(config: ZambaConfig) -> tuple:
    return tuple(sorted((name, repr(value)) for name, value in identity(config).items()))
