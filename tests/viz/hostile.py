"""Arguments for any function of `viz`: labels that plotly might take for markup, numbers that are none.

Made from the signature alone, so that a function added later is tested like the others, or fails until it has a shape here.
"""

import inspect
from collections.abc import Callable
from functools import cache

import numpy as np

from zamba_lab import viz

FIGURES = [name for name in viz.__all__ if name != "depth_diagram"]  # that is a drawing: tests/viz/test_depth.py
LABELS = [
    "<s>",
    "<b>x",
    "</b>&amp;",
    "a & b",
    "$x$",
    "$$\\frac12$$",
    "%{y}",
    "<script>document.title='taken'</script>",
    "<a href='javascript:1'>link</a>",
    "",
    "long " * 50 + "end",
    "w" * 300,
    "שלום",
    "👩‍🔬🦓",
    "two\nlines",
    "1",
    "2020-01-01",
    "nan",
]
TWICE = LABELS + LABELS[:2]  # equal labels are two entries
ONE = "<s>&amp; $x$ %{x} <b>שלום</b> 🦓 "  # a single label; it is made unlike the others of its figure
BAD = [np.nan, np.inf, -np.inf]

# The shapes of arrays, by parameter or by (function, parameter), in terms of n labels.
SHAPES: dict[str | tuple[str, str], Callable[[int], tuple[int, ...]]] = {
    "values": lambda n: (n,),
    ("heatmap", "values"): lambda n: (n, n),
    ("table", "values"): lambda n: (n, n),
    ("lens_map", "values"): lambda n: (n, n),
    "maps": lambda n: (n, n, n),
    "shares": lambda n: (n, n),
    "half_lives": lambda n: (n, 3),
    "change": lambda n: (n,),
    "overlaps": lambda n: (n, 4),
    "chance": lambda n: (9, 4),
    "means": lambda n: (n,),
    ("effects", "means"): lambda n: (n, 2),
    ("effects", "intervals"): lambda n: (n, 2, 2),
    "lows": lambda n: (n,),
    "highs": lambda n: (n,),
    "low": lambda n: (n, n),
    "high": lambda n: (n, n),
    "x": lambda n: (n,),
    "y": lambda n: (n,),
}
# What is neither a label nor an array.
FIXED = {"signed": True, "margin": 0.1, "head": 1, "top": None, "x_range": None, "height": 420, "across": None}
# Words that a function checks: given as they are.
CHECKED = {"verdicts"}
LISTS = {"tokens", "names", "rows", "columns", "sites", "parts", "answers", "predicted"}
DISTINCT = {"lines", "faint", "marks", "curves", "levels"}  # named by a mapping, whose keys differ


def numbers(name: str, parameter: str, n: int, bad: bool) -> np.ndarray:
    """An array of the shape of a parameter, from 1 to 2; with nan, inf and -inf at the third, second and first of the last places."""
    shape = SHAPES.get((name, parameter), SHAPES.get(parameter))
    assert shape, f"viz.{name}({parameter}=...): say in tests/viz/hostile.py what it is"
    # in one line well apart, so that a pointer meets each
    made = np.geomspace(1, 9, n) if len(shape(n)) == 1 else 1 + np.random.default_rng(0).uniform(size=shape(n))
    if bad:
        made.reshape(-1)[[len(made.reshape(-1)) // n * 2, -2, -1]] = BAD  # row 2; and the end, which no map of attention hides
        if len(shape(n)) > 1:
            made[-1, 0] = -np.inf
    return made


def argument(name: str, parameter: str, labels: list[str], bad: bool):
    """What one parameter is given."""
    n = len(labels)
    if parameter in FIXED:
        return FIXED[parameter]
    if parameter in CHECKED:
        return ["no verdict", "alike", "more", "less"][:1] * n
    if parameter == "groups":
        return list(range(n))
    if parameter == "words":
        return [labels] * n
    if parameter == "series":
        return labels[0], labels[1]
    if parameter in LISTS:
        return labels[1:] + labels[:1] if parameter == "predicted" else list(labels)
    if parameter in DISTINCT:
        shape = {"lines": (2,), "faint": (2,), "curves": (3, 2)}
        if parameter in ("marks", "levels"):
            return {label: float(i + 1) for i, label in enumerate(dict.fromkeys(labels))}
        y = 1 + np.zeros(shape[parameter])
        if bad:
            y.reshape(-1)[:2] = (np.inf, -np.inf) if parameter == "curves" else (np.nan, np.inf)
        return {label: ([1.0, 2.0], y + i) for i, label in enumerate(dict.fromkeys(labels))}
    return numbers(name, parameter, n, bad)


def arguments(name: str, labels: list[str] = TWICE, bad: bool = False) -> dict:
    """Every argument of `viz.NAME`: single labels are ONE with the parameter's name."""
    signature = inspect.signature(getattr(viz, name))
    return {
        parameter: ONE + parameter if kind.annotation in ("str", str) else argument(name, parameter, labels, bad)
        for parameter, kind in signature.parameters.items()
    }


def shown_labels(name: str) -> tuple[set[str], set[str]]:
    """The parameters of `viz.NAME` that hold one label, and those that hold a list or mapping of them."""
    signature = inspect.signature(getattr(viz, name))
    single = {parameter for parameter, kind in signature.parameters.items() if kind.annotation in ("str", str)}
    return single, (LISTS | DISTINCT | {"words"}) & set(signature.parameters)


@cache
def draw(name: str, bad: bool = False):
    """The figure of `viz.NAME` with hostile labels, and with numbers that are not finite."""
    return getattr(viz, name)(**arguments(name, bad=bad))
