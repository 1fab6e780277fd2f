"""A study's cells, run: by one worker a core, each cell once, wherever and whenever it was stopped before.

run(study, "runs/store")            # as often as needed: what is finished stays, what was begun goes on
"""

from __future__ import annotations

import os
import time
from collections import deque
from pathlib import Path
from typing import Any

from zamba_lab.ablate.live import Live, Quiet
from zamba_lab.ablate.planning import Plan, Planned, plan
from zamba_lab.ablate.pool import Worker, said
from zamba_lab.ablate.store import Store
from zamba_lab.ablate.study import Study

TRIES = 3  # a worker that dies (killed, out of memory) takes its cell so often
PATIENCE = 2.0  # seconds until a cell is asked for again that another runner is at
FULL = "the sweep stops, its store is whole"


class SweepStopped(RuntimeError):
    """A cell could not be run for a reason that the next one would meet, too; the store has all cells before it."""


def run(study: Study, folder: str | Path, workers: int | None = None, show: Live | Quiet | None = None) -> Plan:
    """Run all cells of a study that are not finished, the tuning of learning rates before the others.

    Args:
        folder: the store. Other runners, of this study or another, may be at work in it.
        workers: processes; None: one a core.
        show: a live table; None: `Live` in a notebook or terminal.

    Returns: the plan, whose cells are all in the store. Raises:
        OSError: the disk is full; SweepStopped: a cell failed. The store is whole, and the same call goes on from there.
        KeyboardInterrupt: Ctrl-C; workers write a checkpoint first.
    """
    store, show, team = Store(folder), Live() if show is None else show, []
    count = workers or os.cpu_count() or 1
    try:
        while left := (todo := plan(study, store)).left(store):
            show.begin(todo, left, min(count, len(left)))
            try:
                team += [Worker(store.folder, number) for number in range(len(team), min(count, len(left)))]
                sweep(store, left, team, show)
            finally:
                show.end()
    finally:
        for worker in team:
            worker.stop()
    return todo


def sweep(store: Store, cells: list[Planned], workers: list[Worker], show: Live | Quiet) -> None:
    """Run these cells, the largest first: the last ones to end are then short. A worker that died is replaced in the list."""
    waiting = deque(sorted(cells, key=lambda one: -one.cell.flops))
    tries: dict[str, int] = {}
    again: list[tuple[float, Planned]] = []  # cells that another runner is at
    while waiting or again or any(worker.cell is not None for worker in workers):
        waiting.extend(one for due, one in again if due <= time.monotonic())
        again = [(due, one) for due, one in again if due > time.monotonic()]
        for worker in workers:
            if worker.cell is None and waiting:
                worker.give(waiting.popleft())  # to one that died idle, too: it will say so
        if all(worker.cell is None for worker in workers):
            time.sleep(0.1)
        for worker, kind, content in said(workers, 0.5):
            one = worker.cell
            if kind == "row":
                show.row(one, content)
                continue
            worker.cell = None
            if kind == "died":
                tries[one.cell.address] = tries.get(one.cell.address, 0) + 1
                workers[workers.index(worker)] = Worker(store.folder, len(workers))
            _settle(kind, content, one, tries, waiting, again, show)
        show.draw()


def _settle(kind: str, content: Any, one: Planned, tries: dict[str, int], waiting: deque, again: list, show: Live | Quiet) -> None:
    """What follows from a worker's last word on a cell."""
    if kind == "done":
        show.done(one, content)
    elif kind == "busy":
        again.append((time.monotonic() + PATIENCE, one))
    elif kind == "full":
        raise OSError(f"{FULL}: {content}")
    elif kind == "died" and tries[one.cell.address] < TRIES:
        waiting.appendleft(one)
    else:
        why = f"its worker died {TRIES} times, the last time with exit status {content}" if kind == "died" else content
        raise SweepStopped(f"cell {one.cell.address} (arm {one.arm!r}, seed {one.seed}) failed: {why}")
