"""A task that leaves a trace of where it is run, and waits there for a node to be killed; nodes import it by this name."""
import os
import time
from dataclasses import dataclass
from pathlib import Path

from ablate.tiny import TRAIN, Before

FOLDER = "ZAMBA_LAB_TEST_TRACE"         # where the traces go; unset: there are none, and nobody waits
HOLD, LAST = 4, TRAIN.steps - 1         # the step at which a cell waits, and the last
LIMIT = 400.0                           # seconds until a wait is given up


@dataclass(frozen=True)
class Traced(Before):
    """On the node that the file `doomed` names the second cell stops in its middle, for good; elsewhere each waits till then."""

    name: str = "traced"

    def batch(self, seed, step, n):
        if n == TRAIN.batch and not self.held_out and FOLDER in os.environ:
            trace(Path(os.environ[FOLDER]), seed, step)
        return super().batch(seed, step, n)


def trace(folder: Path, seed: int, step: int) -> None:
    import ray

    node = ray.get_runtime_context().get_node_id()
    with open(folder / f"{node}.{seed}", "a") as file:
        file.write(f"{step} {os.getpid()}\n")
    if step == HOLD and node == (folder / "doomed").read_text():
        if any(LAST in steps for (_, other), steps in traces(folder, node).items() if other != seed):
            (folder / "held").touch()
            wait_for(folder / "never")
    elif step == HOLD:
        wait_for(folder / "held")


def wait_for(file: Path) -> None:
    until = time.monotonic() + LIMIT
    while not file.exists():
        if time.monotonic() > until:
            raise TimeoutError(f"{file.name} did not come within {LIMIT} seconds")
        time.sleep(0.02)


def lines(folder: Path, node: str = "*") -> list[tuple[str, int, int, int]]:
    """(node, seed, step, process) of every step that was begun."""
    found = []
    for file in sorted(folder.glob(f"{node}.*")):
        where, seed = file.name.split(".")
        found += [(where, int(seed), *map(int, line.split())) for line in file.read_text().splitlines()]
    return found


def traces(folder: Path, node: str = "*") -> dict[tuple[str, int], list[int]]:
    """(node, seed) -> its steps, in the order in which they were begun."""
    found: dict[tuple[str, int], list[int]] = {}
    for where, seed, step, _ in lines(folder, node):
        found.setdefault((where, seed), []).append(step)
    return found
