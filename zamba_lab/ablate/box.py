"""The studies in the box: their files, and what was found when they were run.

study, store = ablate.stored("quick")             # data/studies/quick: nothing is run
print(ablate.report(study, store))
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from zamba_lab.ablate.store import Store
from zamba_lab.ablate.study import Study, read_study
from zamba_lab.config.presets import SHIPPED

FOLDER = SHIPPED["zamba2-nano"].parent / "studies"
FILE = "study.yaml"


def names() -> list[str]:
    """The studies in the box."""
    return sorted(file.parent.name for file in FOLDER.glob(f"*/{FILE}"))


def study_file(given: str | Path) -> Path:
    """The file of a study: a path, or the name of one in the box. Raises ValueError if it is neither."""
    if Path(given).is_file():
        return Path(given)
    if str(given) in names():
        return FOLDER / str(given) / FILE
    raise ValueError(f"a study is a .yaml or .json file, or one of {', '.join(names())}: got {str(given)!r}")


def stored(name: str) -> tuple[Study, Store]:
    """A study in the box and the store of its results. Raises ValueError if there is none, or none was run."""
    file = study_file(name)
    if not (folder := file.parent / "store").exists():
        raise ValueError(f"no results of {name!r} come with the lab: zamba-lab ablate run {name} makes them")
    study, store = read_study(file), Store(folder)
    return replace(study, task=as_it_was(study.task, store)), store


def as_it_was(task: Any, store: Store) -> Any:
    """The task as the store's cells had it: real text is another with another version of Python, and so are its cells."""
    found = [json.loads(row["task"]) for row in store.query("select distinct task from cells")]
    same = [
        facts
        for facts in found
        if facts.keys() == task.facts().keys()
        and all(value == task.facts()[key] for key, value in facts.items() if key not in OF_THE_MACHINE)
    ]
    return Elsewhere(task, same[0]) if len(same) == 1 and same[0] != task.facts() else task


OF_THE_MACHINE = ("python", "crc32")


class Elsewhere:
    """A task on data that another machine had: what was found on it can be read; no new cell can be run."""

    def __init__(self, task: Any, facts: dict[str, Any]):
        self._task, self._facts = task, facts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._task, name)

    def facts(self) -> dict[str, Any]:
        return self._facts

    def batch(self, seed: int, step: int, n: int) -> Any:
        raise ValueError(
            f"these results are of data that is not here ({', '.join(f'{k} {self._facts[k]}' for k in OF_THE_MACHINE)}"
            "): a study of the same file, run here, is another one, with cells of its own"
        )

    unseen = batch
