"""A study's file, YAML or JSON, with the line of everything in it, so that what is refused can be found."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

Place = tuple[Any, ...]


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes 1e-3 for a text; here it is the number that it is in JSON and in YAML 1.2."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9.]*[eE][-+]?[0-9]+$"), list("-+0123456789"))


def read(file: Path) -> tuple[Any, dict[Place, int]]:
    """What the file holds, and the line, from 1, of each key and entry: ("axes", "rope", 1) is the second level of rope.

    Raises ValueError with the line if it cannot be read, or says a key twice.
    """
    try:
        loader = _Loader(file.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        lines: dict[Place, int] = {(): 1}
        if node is not None:
            _note(node, (), lines, loader, file)
        return (None if node is None else loader.construct_document(node)), lines
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"a study's file must be YAML or JSON that can be read: {str(file)!r} ({error})") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"{file}:{line}: a study's file must be YAML or JSON: {error.problem}") from error


def _note(node: yaml.Node, place: Place, lines: dict[Place, int], loader: yaml.Loader, file: Path) -> None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            inner = (*place, loader.construct_object(key))
            if inner in lines:
                raise ValueError(f"{file}:{key.start_mark.line + 1}: {inner[-1]!r} is said twice, first in line {lines[inner]}")
            lines[inner] = key.start_mark.line + 1
            _note(value, inner, lines, loader, file)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            lines[(*place, number)] = value.start_mark.line + 1
            _note(value, (*place, number), lines, loader, file)


def line_of(place: Place, lines: dict[Place, int]) -> int:
    """The line of a place, or of the nearest that encloses it."""
    while place not in lines:
        place = place[:-1]
    return lines[place]
