"""A task that leaves a trace of where its cells are run, and stops a cell in its middle; workers and nodes import it by name.

Each step leaves a line in the file PLACE.SEED of a folder. At the step HOLD a cell waits for the file `go`; but in the place
called `doomed` the first cell ends, and the second makes that file and waits for `killed`, if that ever comes.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from ablate.tiny import TRAIN, Before, study

FOLDER, PLACE = "ZAMBA_LAB_TEST_TRACE", "ZAMBA_LAB_TEST_PLACE"  # environment; without FOLDER nothing is done
HOLD, LAST = 4, TRAIN.steps - 1  # steps, from 0
LIMIT = 400.0  # seconds until a wait is given up


@dataclass(frozen=True)
class Traced(Before):
    name: str = "traced"

    def batch(self, seed, step, n):
        if n == TRAIN.batch and not self.held_out and FOLDER in os.environ:
            trace(Path(os.environ[FOLDER]), os.environ[PLACE], seed, step)
        return super().batch(seed, step, n)


def six():
    """A study of six cells, which differ by their seed."""
    return study(task=Traced(), seeds=range(6), axes={})


def trace(folder: Path, place: str, seed: int, step: int) -> None:
    with open(folder / f"{place}.{seed}", "a") as file:
        file.write(f"{step} {os.getpid()}\n")
    if step == HOLD and place != "doomed":
        wait_for(folder / "go")
    elif step == HOLD and any(LAST in steps for (where, other), steps in traces(folder).items() if where == place and other != seed):
        (folder / "go").touch()
        wait_for(folder / "killed")


def wait_for(file: Path) -> None:
    until = time.monotonic() + LIMIT
    while not file.exists():
        if time.monotonic() > until:
            raise RuntimeError(f"{file.name} did not come within {LIMIT} seconds")
        time.sleep(0.02)


def lines(folder: Path) -> list[tuple[str, int, int, int]]:
    """(place, seed, step, process) of every step that was begun."""
    found = []
    for file in sorted(folder.glob("*.*")):
        place, seed = file.name.split(".")
        found += [(place, int(seed), *map(int, line.split())) for line in file.read_text().splitlines()]
    return found


def traces(folder: Path) -> dict[tuple[str, int], list[int]]:
    """(place, seed) -> its steps, in the order in which they were begun."""
    found: dict[tuple[str, int], list[int]] = {}
    for place, seed, step, _ in lines(folder):
        found.setdefault((place, seed), []).append(step)
    return found
