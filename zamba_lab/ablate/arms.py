"""The arms of a study: a base and what differs from it, one factor at a time, in grids, or by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from zamba_lab.ablate.axes import changed, function
from zamba_lab.config import ZambaConfig

BASE = "base"


@dataclass(frozen=True)
class Arm:
    """One architecture of a study.

    name: in its tables. family: the contrasts that are corrected together: those of one axis, one grid, or all named arms.
    changes: axis -> level, from the base.
    """

    name: str
    family: str
    config: ZambaConfig
    changes: tuple[tuple[str, Any], ...] = ()


class Impossible(ValueError):
    """An arm that cannot be had. place: where in the study it is asked for, as the keys that lead there."""

    def __init__(self, message: str, place: tuple):
        super().__init__(message)
        self.place = place


def arms_of(
    base: ZambaConfig,
    axes: Mapping[str, Iterable[Any]],
    arms: Mapping[str, Mapping[str, Any]],
    grids: Iterable[Mapping[str, Iterable[Any]]],
) -> tuple[Arm, ...]:
    """The base first, then all others. An axis or a grid may name the base's own level, which is the base.

    Raises Impossible if an axis is unknown, a level not to be had, or two arms are one.
    """
    found = [Arm(BASE, BASE, base)]
    seen: dict[tuple, str] = {_key(base): BASE}

    def add(name: str, family: str, changes: Mapping[str, Any], place: tuple, base_too: bool) -> None:
        config = _changed(base, changes, place)
        key = _key(config)
        if key in seen and not (base_too and seen[key] == BASE):
            raise Impossible(f"arm {name!r} is the same model as {seen[key]!r}", place)
        if key not in seen:
            seen[key] = name
            found.append(Arm(name, family, config, tuple(changes.items())))

    for axis, levels in axes.items():
        for k, level in enumerate(_levels(levels, ("axes", axis))):
            add(f"{axis}={said(level)}", axis, {axis: level}, ("axes", axis, k), base_too=True)
    for number, grid in enumerate(grids):
        whole = [[(axis, level) for level in _levels(levels, ("grid", number, axis))] for axis, levels in grid.items()]
        for point in product(*whole):
            name = ", ".join(f"{axis}={said(level)}" for axis, level in point)
            if _key(_changed(base, dict(point), ("grid", number))) not in seen:  # an edge of the grid may be an axis
                add(name, " x ".join(grid), dict(point), ("grid", number), base_too=True)
    for name, changes in arms.items():
        if not isinstance(changes, Mapping) or not changes:
            raise Impossible(f"arm {name!r} must say what it changes, as axis: level; got {changes!r}", ("arms", name))
        add(str(name), "arms", changes, ("arms", name), base_too=False)
    if len({arm.name for arm in found}) < len(found):
        raise Impossible(f"each arm needs a name of its own: got {[arm.name for arm in found]}", ("arms",))
    return tuple(found)


def said(level: Any) -> str:
    """A level as it stands in a name."""
    if isinstance(level, bool):
        return "on" if level else "off"
    return "+".join(map(str, level)) if isinstance(level, list | tuple) else str(level)


def _levels(levels: Any, place: tuple) -> list[Any]:
    if not isinstance(levels, list | tuple) or not levels:
        raise Impossible(f"an axis takes a list of levels, at least one: got {levels!r}", place)
    return list(levels)


def _changed(base: ZambaConfig, changes: Mapping[str, Any], place: tuple) -> ZambaConfig:
    """The base with all the changes, one after the other."""
    config = base
    for axis, level in changes.items():
        config = _placed(changed, (*place, axis) if len(changes) > 1 or place[0] == "arms" else place, config, axis, level)
    return config


def _placed(make: Callable, place: tuple, *arguments: Any) -> Any:
    """make(...), whose ValueError becomes Impossible with a place."""
    try:
        return make(*arguments)
    except ValueError as error:
        raise Impossible(str(error), place) from error


def _key(config: ZambaConfig) -> tuple:
    return tuple(sorted((name, repr(value)) for name, value in function(config).items()))
