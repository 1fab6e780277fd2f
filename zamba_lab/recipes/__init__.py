"""What this project trains, each by one command: `zamba-lab train NAME`.

shipped.py            the four models in data/: text, vocabulary, two phases, measurement
annealing_study.py    what the second phase is worth, from five trunks
positive_control.py   three small models that must solve recall before a study on recall means anything;  NOTES.md what that took
plan.py               what a large run needs on many GPUs, computed;  PLAN.md
text.py               the shipped corpus as two domains;  picture.py a curve as SVG
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from zamba_lab.config.presets import SHIPPED

Recipe = Callable[[Path | None, Path | None], object]


def recipes() -> dict[str, Recipe]:
    """By name, what needs no argument: (folder of the result, folder of the runs), None for the usual ones -> what is printed."""
    return {**{name: partial(_shipped, name) for name in SHIPPED}, "shipped": _all_shipped, "annealing-study": _annealing_study}


def _shipped(name: str, out: Path | None, runs: Path | None) -> object:
    from zamba_lab.recipes import shipped

    return shipped.make(name, out or Path("data") / name, runs or Path("runs") / name)


def _all_shipped(out: Path | None, runs: Path | None) -> object:
    from zamba_lab.recipes import shipped

    return shipped.make_all(out or Path("data"), runs or Path("runs"))


def _annealing_study(out: Path | None, runs: Path | None) -> object:
    from zamba_lab.recipes import annealing_study

    return annealing_study.study(out or Path("data/studies/annealing"), runs or Path("runs/annealing-study"))
