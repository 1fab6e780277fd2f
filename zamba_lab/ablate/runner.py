"""A study's cells, run: by one worker process a core, each cell once, wherever and whenever it was stopped before.

    run(study, "runs/store")            # as often as needed: what is finished stays, what was begun goes on

Workers have one thread each and are started afresh ("spawn"), so that nothing of this process leaks into a cell. A worker receives a
cell, claims it in the store, runs it there and reports its progress. If this process is gone the worker ends at its next report; if the
worker is killed, its lock goes with it and whoever claims the cell next goes on.
"""

import multiprocessing
import os
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from zamba_lab.ablate.cell import Cell, run_cell
from zamba_lab.ablate.live import Live, Quiet
from zamba_lab.ablate.planning import Plan, Planned, plan
from zamba_lab.ablate.registry import check
from zamba_lab.ablate.store import Store
from zamba_lab.ablate.study import Study

TRIES = 3  # a worker that dies (killed, out of memory) is given its cell so often
PATIENCE = 2.0  # seconds until a cell is asked for again that another runner is at
REPORT_EVERY = 0.5  # seconds between two reports of a worker's progress
FULL = "the sweep stops, its store is complete"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class SweepStopped(RuntimeError):
    """A cell could not be run for a reason that the next one would meet, too; the store has all cells before it."""


def run(study: Study, folder: str | Path, workers: int | None = None, show: Live | Quiet | None = None) -> Plan:
    """Run all cells of a study that are not finished, the tuning of learning rates before the others.

    Args:
        folder: the store. Other runners, of this study or another, may be at work in it.
        workers: processes; None: one a core.
        show: a live table; None: `Live` in a notebook or terminal.

    Returns: the plan, whose cells are all in the store. Raises:
        ValueError: the study was registered in the store and is another one now (registry.py).
        OSError: the disk is full, or has no locks; SweepStopped: a cell failed. The store is complete then, and the same call continues.
        KeyboardInterrupt: Ctrl-C; workers write a checkpoint first.
    """
    store, show, team = Store(folder), Live() if show is None else show, []
    check(study, store)
    count = workers or os.cpu_count() or 1
    try:
        while left := (todo := plan(study, store)).left(store):
            show.begin(todo, store.statuses(), min(count, len(left)))
            try:
                team += [Worker(store.folder, number) for number in range(len(team), min(count, len(left)))]
                sweep(store, left, team, show)
            finally:
                show.end()
    finally:
        for worker in team:
            worker.stop()
    return todo


def largest_first(cells: list[Planned]) -> deque[Planned]:
    """The cells in the order in which they are run: the last ones to end are then short."""
    return deque(sorted(cells, key=lambda planned: -planned.cell.flops))


def sweep(store: Store, cells: list[Planned], workers: "list[Worker]", show: Live | Quiet) -> None:
    """Run these cells. A worker that died is replaced in the list."""
    waiting, deaths = largest_first(cells), Counter()
    again: list[tuple[float, Planned]] = []  # cells that another runner is at, and when to ask for them
    while waiting or again or any(worker.cell is not None for worker in workers):
        waiting.extend(planned for due, planned in again if due <= time.monotonic())
        again = [(due, planned) for due, planned in again if due > time.monotonic()]
        for worker in workers:
            if worker.cell is None and waiting:
                worker.give(waiting.popleft())  # to one that died idle, too: the next report says so
        if all(worker.cell is None for worker in workers):
            time.sleep(0.1)
        for worker, kind, content in reports(workers, 0.5):
            planned = worker.cell
            if kind == "row":
                show.row(planned, content)
                continue
            worker.cell = None
            if kind == "done":
                show.done(planned, content)
            elif kind == "busy":
                again.append((time.monotonic() + PATIENCE, planned))
            elif kind == "died" and deaths[planned.cell.address] + 1 < TRIES:
                deaths[planned.cell.address] += 1
                workers[workers.index(worker)] = Worker(store.folder, len(workers))
                waiting.appendleft(planned)
            else:
                raise stopped(planned, kind, content)
        show.draw()


def stopped(planned: Planned, kind: str, why: Any) -> Exception:
    """What ends a sweep: "full", a store that cannot be written; "died", a worker, too often; "failed", a cell."""
    if kind == "full":
        return OSError(f"{FULL}: {why}")
    why = f"its worker died {TRIES} times, the last time with exit status {why}" if kind == "died" else why
    return SweepStopped(f"cell {planned.cell.address} (arm {planned.arm!r}, seed {planned.seed}) failed: {why}")


class Worker:
    """One process and the connection to it. cell: the planned cell it was given, None while it has nothing to do."""

    def __init__(self, store: Path, number: int):
        context = multiprocessing.get_context("spawn")
        self.connection, other = context.Pipe()
        before = {name: os.environ.get(name) for name in ONE_THREAD}
        os.environ.update(ONE_THREAD)  # read when torch is loaded, which the child does by itself
        try:
            self.process = context.Process(target=work, args=(other, str(store)), daemon=True, name=f"cell-worker-{number}")
            self.process.start()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        other.close()
        self.cell: Planned | None = None

    def give(self, planned: Planned) -> None:
        self.cell = planned
        with suppress(OSError):  # it died while it had nothing to do; `reports` will tell
            self.connection.send(planned.cell)

    def stop(self) -> None:
        """Have it write a checkpoint and end; kill it if it does not."""
        self.connection.close()  # the end, for one that waits
        if self.cell is not None:
            self.process.terminate()
        self.process.join(20)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def reports(workers: list[Worker], seconds: float) -> Iterator[tuple[Worker, str, Any]]:
    """What workers report within so many seconds: (worker, "row" | "done" | "busy" | "full" | "failed" | "died", content)."""
    senders = {worker.connection: worker for worker in workers if worker.cell is not None}
    for connection in wait(list(senders), seconds):
        try:
            yield senders[connection], *connection.recv()
        except (EOFError, OSError):
            yield senders[connection], "died", senders[connection].process.exitcode


def work(connection: Connection, folder: str) -> None:
    """A worker's life: cells until the connection ends."""
    import torch

    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C is for the runner, which then stops its workers
    torch.set_num_threads(1)
    sys.stderr = open(os.devnull, "w")  # a run draws a bar of its own
    store = Store(folder)
    try:
        while True:
            connection.send(outcome(connection.recv(), store, connection))
    except (EOFError, OSError, KeyboardInterrupt):  # nobody waits for this cell any more
        return


def outcome(cell: Cell, store: Store, connection: Connection) -> tuple[str, Any]:
    """Claim a cell, run it and keep it: ("done", its status), ("busy", None) if another has it, ("full", why) if something
    could not be written, the claim included, ("failed", why)."""
    try:
        with store.claim(cell.address) as mine:
            if not mine:
                finished = store.has(cell.address)
                return ("done", store.records([cell.address])[cell.address]["status"]) if finished else ("busy", None)
            record, weights = run_cell(cell, store.work(cell.address), _reporter(connection))
            store.add(record, weights if cell.weights else None)
            return "done", record["status"]
    except (BrokenPipeError, EOFError):
        raise
    except OSError as error:
        return "full", f"{error}"
    except Exception as error:
        return "failed", f"{type(error).__name__}: {error}\n{traceback.format_exc()}"


def _reporter(connection: Connection):
    """A function that passes rows of metrics on, at most one every REPORT_EVERY seconds and every evaluation."""
    last = 0.0

    def report(row: Mapping[str, Any]) -> None:
        nonlocal last
        if row.get("accuracy") is not None or time.monotonic() - last > REPORT_EVERY:
            last = time.monotonic()
            connection.send(("row", {key: row.get(key) for key in ("step", "loss", "accuracy", "seconds", "link_shares")}))

    return report
