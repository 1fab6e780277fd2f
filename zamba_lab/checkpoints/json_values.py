"""Reading JSON that may hold anything: a file as an object, a key as a value of a stated kind, or CheckpointError."""

import json
import math
from collections.abc import Callable
from pathlib import Path

from zamba_lab.checkpoints.errors import CheckpointError

REQUIRED = object()
MAX_DESCRIPTION = 2**23  # bytes of a config.json, an index, a weight file's header: the largest published ones have 2^20
MAX_DEPTH = 16  # of lists and objects inside one another


def read_object(path: Path) -> dict:
    """The JSON object that a file of at most MAX_DESCRIPTION bytes holds."""
    if not path.is_file():
        raise CheckpointError(f"a checkpoint needs {path.name}: there is no file {str(path)!r}")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_DESCRIPTION + 1)
        if len(content) > MAX_DESCRIPTION:
            raise ValueError(f"it has more than {MAX_DESCRIPTION:,} bytes")
        value = json.loads(content.decode("utf-8"))
        if _deeper_than(MAX_DEPTH, value):
            raise ValueError(f"it nests deeper than {MAX_DEPTH}")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name} must hold JSON: {str(path)!r} does not ({error})") from error
    except OSError as error:
        raise CheckpointError(f"{str(path)!r} cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path.name} must hold a JSON object: {str(path)!r} holds a {type(value).__name__}")
    return value


def _deeper_than(depth: int, value) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not depth or any(_deeper_than(depth - 1, entry) for entry in inner if isinstance(entry, dict | list))


def _is_int(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63


def _is_float(value) -> bool:
    return _is_int(value) or isinstance(value, float) and math.isfinite(value)


def _is_ints(value) -> bool:
    return isinstance(value, list | tuple) and all(map(_is_int, value))


KINDS: dict[str, Callable] = {
    "int": _is_int,
    "float": _is_float,
    "bool": lambda value: isinstance(value, bool),
    "str": lambda value: isinstance(value, str),
    "tuple[int, ...]": _is_ints,
    "list[str]": lambda value: isinstance(value, list) and all(isinstance(word, str) for word in value),
    "dict": lambda value: isinstance(value, dict),
}


def read_key(raw: dict, key: str, kind: str, default=REQUIRED):
    """raw[key], checked to be of the kind (a key of KINDS, perhaps with "| None"); the default where it is absent.

    Where the kind does not allow null, null means absent.
    """
    value = raw.get(key)
    plain = kind.removesuffix(" | None")
    if key in raw and value is None and plain != kind:
        return None
    if value is None:
        if default is REQUIRED:
            raise CheckpointError(f"config.json must have {key!r}: its keys are {brief(sorted(raw))}")
        return default
    if not KINDS[plain](value):
        raise CheckpointError(f"config.json: {key!r} must be of kind {kind}, got {type(value).__name__} {brief(value)}")
    return {"float": float, "tuple[int, ...]": tuple}.get(plain, lambda same: same)(value)


def brief(value) -> str:
    """The beginning of a value, for a message."""
    text = "that is too large" if isinstance(value, int) and not -(2**63) < value < 2**63 else repr(value)
    return f"{text[:300]}{'...' if len(text) > 300 else ''}"
