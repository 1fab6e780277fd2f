"""Read a YAML or JSON file that describes a run or a study, and remember the line of everything in it.

Bounded, for such a file may come from anyone: at most MAX_BYTES, MAX_DEPTH levels, and MAX_VALUES values once its aliases are
expanded. A short file of nested aliases would otherwise fill the memory.
"""

import re
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 1_000_000
MAX_DEPTH = 30
MAX_VALUES = 20_000

Place = tuple[Any, ...]  # the keys and list indices that lead to a value


class _Loader(yaml.SafeLoader):
    """Plain values as YAML 1.2 and JSON have them: 1e-3 is a number, 010 is ten, 1:30 and 2024-01-01 are texts.

    YAML 1.1's on, off, yes and no stay truth values.
    """

    yaml_implicit_resolvers: dict = {}

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        digits = self.construct_scalar(node)
        return int(digits, 0 if digits.lstrip("+-")[:2].lower() in ("0x", "0o") else 10)


for _kind, _pattern, _first in (
    ("bool", r"(?i:yes|no|true|false|on|off)$", "yYnNtTfFoO"),
    ("null", r"(?i:~|null|)$", ("~", "n", "N", "")),
    ("int", r"[-+]?(?:[0-9][0-9_]*|0[xX][0-9a-fA-F]+|0[oO][0-7]+)$", "-+0123456789"),
    ("merge", r"<<$", "<"),
    ("float", r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?$|[-+]?\.(?i:inf)$|\.(?i:nan)$", "-+0123456789."),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)


def read_yaml(file: str | Path, kind: str) -> tuple[Any, dict[Place, int]]:
    """The content of a YAML or JSON file and the line, from 1, of each key and list entry.

    kind: what the file is, for the messages ("a study's file"). ("axes", "rope", 1) is the place of the second value of axes.rope.

    Raises ValueError, with the line where there is one, if it cannot be read, repeats a key or exceeds a bound.
    """
    file = Path(file)
    lines: dict[Place, int] = {(): 1}
    try:
        if (size := file.stat().st_size) > MAX_BYTES:
            raise ValueError(f"{file}: {kind} has at most {MAX_BYTES:,} bytes: got {size:,}")
        text = file.read_text(encoding="utf-8")
        loader = _Loader(text.replace("\t", " ") if file.suffix == ".json" else text)  # JSON may be indented by tabs
        node = loader.get_single_node()
        if node is None:
            return None, lines
        _note_lines(node, (), lines, loader, f"{file}:{{}}: {kind}")
        return loader.construct_document(node), lines
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{kind} must be YAML or JSON that can be read: {str(file)!r} ({error})") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or error
        raise ValueError(f"{file}:{mark.line + 1 if mark else 1}: {kind} must be YAML or JSON: {problem}") from error
    except RecursionError as error:
        raise ValueError(f"{file}: {kind} has at most {MAX_DEPTH} levels") from error


def _note_lines(node: yaml.Node, place: Place, lines: dict[Place, int], loader: _Loader, where: str) -> None:
    """Enter the line of every value below a node. An alias is followed at each of its places, so that expansion is counted."""
    line = node.start_mark.line + 1
    if len(place) > MAX_DEPTH or len(lines) > MAX_VALUES:
        raise ValueError(f"{where.format(line)} has at most {MAX_DEPTH} levels and {MAX_VALUES:,} values, aliases expanded")
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ValueError(f"{where.format(line)} has keys that are texts or numbers")
            merge = key.tag == "tag:yaml.org,2002:merge"
            inner = (*place, key.value if merge else loader.construct_object(key))
            if inner in lines:
                raise ValueError(f"{where.format(line)} repeats {inner[-1]!r}, first in line {lines[inner]}")
            lines[inner] = line
            _note_lines(value, inner, lines, loader, where)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            lines[(*place, index)] = value.start_mark.line + 1
            _note_lines(value, (*place, index), lines, loader, where)


def line_of(place: Place, lines: dict[Place, int]) -> int:
    """The line of a place, or of the nearest one that encloses it."""
    while place not in lines:
        place = place[:-1]
    return lines[place]
