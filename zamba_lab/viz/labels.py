"""Labels and numbers as plotly takes them: any text is shown letter for letter, and a number that cannot be drawn is said.

plotly reads `<b>`, `&lt;`, `$x$` and `%{x}` in any of its texts as markup, so every label goes through `plain` or a function
that calls it, once. Equal labels are separate entries: axes are numbered, or their categories carry the position.
"""

import re
from collections.abc import Sequence
from html import escape
from textwrap import wrap

import numpy as np

LABEL = 36  # characters of a label beside an axis; the hover text has all of it
TOKEN = 11  # characters of a token below an axis
LINE = 90  # characters in a line of hover text
POWERS = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
# `$` and `%{` would start a formula or a template; a line break stays one; control characters and halves of surrogate
# pairs have no letter of their own.
MARKUP = {"$": "&#36;", "%{": "&#37;{", "\n": "<br>"}
CONTROL = {chr(i): chr(0x2400 + i) for i in range(32) if chr(i) != "\n"} | {"\x7f": "␡"}


def array(values, name: str, ndim: int) -> np.ndarray:
    """`values` as float64 of `ndim` axes: torch tensors of any dtype and device, arrays, nested lists.

    Raises ValueError with the name and shape if the number of axes is another.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes: got shape {numbers.shape}")
    return numbers


def must_match(name: str, labels, length: int, of: str = "") -> None:
    """Raise ValueError unless there is one label for each of `length` entries."""
    if len(labels) != length:
        raise ValueError(f"{name} needs one label for each entry{of and f' of {of}'}: got {len(labels)} labels, {length} entries")


def labelled(values, name: str, *axes: tuple[str, Sequence]) -> np.ndarray:
    """`array` with one axis for each (name, labels); raises ValueError if one of them has another length than its labels."""
    values = array(values, name, len(axes))
    for (axis, labels), length in zip(axes, values.shape):
        must_match(axis, labels, length, of=name)
    return values


def plain(text: object) -> str:
    """Text that plotly draws letter for letter."""
    text = re.sub("[\ud800-\udfff]", "\ufffd", str(text)).translate(str.maketrans(CONTROL))
    return re.sub(r"\$|%\{|\n", lambda markup: MARKUP[markup[0]], escape(text, quote=False))


def short(text: object, most: int = LABEL) -> str:
    """The first `most` characters, the last of them … if there are more."""
    text = str(text)
    return plain(text if len(text) <= most else text[: most - 1] + "…")


def wrapped(text: object, width: int = LINE) -> str:
    """Text in lines of at most `width` characters, broken at spaces where there are any."""
    lines = (part for line in str(text).split("\n") for part in wrap(line, width, drop_whitespace=False) or [""])
    return "<br>".join(plain(line) for line in lines)


def token_label(token: str, most: int = TOKEN) -> str:
    """A token's label; four or more spaces are counted: `⏎········` is ⏎·⁸."""
    return short(re.sub("·{4,}", lambda run: "·" + str(len(run[0])).translate(POWERS), token), most)


def positions(tokens: Sequence[str]) -> list[str]:
    """Each position in words, for hover text and as an axis's categories: token 12 «return»."""
    return [wrapped(f"token {i} «{token}»") for i, token in enumerate(tokens)]


def not_drawn(*arrays: np.ndarray, missing: str = "", positive: bool = False) -> str:
    """A sentence on the numbers that have no place on an axis, or "".

    missing: what NaN means in this figure; "": nothing, and it is counted. positive: a logarithmic axis, without room for 0.
    """
    values = np.concatenate([np.ravel(part) for part in arrays]) if arrays else np.zeros(0)
    counts = {
        "nan": 0 if missing else np.isnan(values).sum(),
        "inf": np.isposinf(values).sum(),
        "-inf": np.isneginf(values).sum(),
        "not above 0": (np.isfinite(values) & (values <= 0)).sum() if positive else 0,
    }
    parts = [f"{count} {name}" for name, count in counts.items() if count]
    return f"Not drawn as numbers: {', '.join(parts)}." if parts else ""
