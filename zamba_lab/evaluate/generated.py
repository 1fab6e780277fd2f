"""Texts of the lab's own tasks, made from a seed: small pieces of Python, which the shipped models read. Nothing is fetched.

They are for checking an adapter and trying a model, not for comparing models with the literature.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from datasets import Dataset, DatasetDict

NAMES = [
    *("width", "height", "depth", "count", "index", "value", "name", "path", "size", "start", "stop", "step"),
    *("left", "right", "first", "last", "key", "item", "node", "line", "text"),
]
MODULES = [
    *("os", "re", "sys", "json", "math", "time", "copy", "glob", "random", "string", "struct", "socket"),
    *("shutil", "logging", "threading"),
]
SHOTS, DOCUMENTS = 5, 40


def _made(make: Callable[[Random], dict], seed: int, documents: int = DOCUMENTS) -> DatasetDict:
    """Documents of `make`, the first SHOTS of them as examples; one seed, one set."""
    random = Random(seed)
    rows = [make(random) for _ in range(SHOTS + documents)]
    return DatasetDict(shots=Dataset.from_list(rows[:SHOTS]), test=Dataset.from_list(rows[SHOTS:]))


def choice(**_) -> DatasetDict:
    """Which of four names a method assigns to the attribute of the same name. Chance: 0.25."""

    def make(random: Random) -> dict:
        names = random.sample(NAMES, 4)
        asked = random.choice(names[:3])
        text = f"def __init__(self, {', '.join(names[:3])}):\n    self.{asked} ="
        answers = random.sample(names, 4)
        return {"text": text, "choices": [f" {name}" for name in answers], "target": answers.index(asked)}

    return _made(make, 1)


def word(**_) -> DatasetDict:
    """The last word of a function, which its first line has named."""

    def make(random: Random) -> dict:
        one, two, name = random.sample(NAMES, 3)
        return {"text": f"def {name}({one}, {two}):\n    if {one} is None:\n        return {two}\n    return", "target": f" {one}"}

    return _made(make, 2)


def text(**_) -> DatasetDict:
    """Modules of one to twelve functions."""

    def make(random: Random) -> dict:
        lines = [f"import {name}" for name in sorted(random.sample(MODULES, 2))]
        for _ in range(random.randint(1, 12)):
            one, two, name = random.sample(NAMES, 3)
            lines += ["", f"def get_{name}({one}, {two}={random.randrange(100)}):", f"    return {one} + {two}"]
        return {"text": "\n".join(lines) + "\n"}

    return _made(make, 3)


def write(**_) -> DatasetDict:
    """The call of a function that was imported the line before."""

    def make(random: Random) -> dict:
        module, name, argument = random.choice(MODULES), *random.sample(NAMES, 2)
        return {"text": f"from {module} import {name}\n{argument} = {name}(", "target": f"{argument})"}

    return _made(make, 4)
