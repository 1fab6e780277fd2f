"""The lessons: for each a text (`texts/`), and a module here with its exercises."""

import functools
import re
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from zamba_lab.course.exercises import Exercise

TEXTS = Path(__file__).parent / "texts"
# Where the exercises of a lesson are; the text's name begins with the same number.
MODULES = {1: "hybrid", 2: "recurrence", 3: "selection", 4: "ssd_forms", 5: "capacity", 9: "caches", 10: "ablation"}


@dataclass(frozen=True)
class Lesson:
    """A lesson: its number, the name of its files, its title, its text in Markdown and its exercises."""

    number: int
    name: str
    title: str
    text: str
    exercises: tuple[Exercise, ...]


@functools.cache
def lessons() -> tuple[Lesson, ...]:
    """All lessons, in order."""
    found = []
    for number, module in sorted(MODULES.items()):
        (file,) = TEXTS.glob(f"{number:02d}_*.md")
        text = file.read_text(encoding="utf-8")
        (title,) = re.findall(rf"\A# Lesson {number}: (.+)\n", text)
        found.append(Lesson(number, file.stem, title, text, import_module(f"zamba_lab.course.{module}").EXERCISES))
    return tuple(found)


def lesson(number: int) -> Lesson:
    """Raises ValueError if there is none of that number."""
    for found in lessons():
        if found.number == number:
            return found
    raise ValueError(f"there is no lesson {number}: there are {', '.join(str(found.number) for found in lessons())}")


def exercise(number: str) -> Exercise:
    """Raises ValueError if there is none of that number, such as "2.1"."""
    every = [each for found in lessons() for each in found.exercises]
    for each in every:
        if each.number == number:
            return each
    raise ValueError(f"there is no exercise {number!r}: there are {', '.join(each.number for each in every)}")
