"""Worker processes, each with one thread, started afresh ("spawn") so that nothing of this process leaks into a cell.

A worker takes a cell, claims it in the store, runs it there and says how far it is. If this process is gone the worker ends
at its next word; if the worker is killed, its lock goes with it and the cell goes on, by whoever claims it next.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from zamba_lab.ablate.cell import Cell, run_cell
from zamba_lab.ablate.store import Store

WORD = 0.5  # seconds between two words of a worker on its progress


class Worker:
    """One process and the line to it."""

    def __init__(self, store: Path, number: int):
        context = multiprocessing.get_context("spawn")
        self.line, other = context.Pipe()
        before = {name: os.environ.get(name) for name in _ENVIRONMENT}
        os.environ.update(_ENVIRONMENT)  # read when torch is loaded, which the child does by itself
        try:
            self.process = context.Process(target=work, args=(other, str(store)), daemon=True, name=f"cell-worker-{number}")
            self.process.start()
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        other.close()
        self.cell: Any = None

    def give(self, planned: Any) -> None:
        self.cell = planned
        try:
            self.line.send(planned.cell)
        except OSError:  # it died while it had nothing to do; `said` will tell
            pass

    def stop(self) -> None:
        """Have it write a checkpoint and end; kill it if it does not."""
        self.line.close()  # the end, for one that waits
        if self.cell is not None:
            self.process.terminate()
        self.process.join(20)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def said(workers: list[Worker], seconds: float) -> Iterator[tuple[Worker, str, Any]]:
    """What workers say within so many seconds: (worker, "row" | "done" | "busy" | "full" | "failed" | "died", content)."""
    lines = {worker.line: worker for worker in workers if worker.cell is not None}
    for line in wait(list(lines), seconds):
        try:
            yield lines[line], *line.recv()
        except (EOFError, OSError):
            yield lines[line], "died", lines[line].process.exitcode


def work(line: Connection, folder: str) -> None:
    """A worker's life: cells until the line is cut."""
    import torch

    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C is for the runner, which then tells its workers
    torch.set_num_threads(1)
    sys.stderr = open(os.devnull, "w")  # a run draws a bar of its own
    store = Store(folder)
    try:
        while True:
            line.send(outcome(line.recv(), store, line))
    except (EOFError, OSError, KeyboardInterrupt):  # the line is cut: nobody waits for this cell any more
        return


def outcome(cell: Cell, store: Store, line: Connection) -> tuple[str, Any]:
    """Claim a cell, run it and keep it: ("done", its status), ("busy", None) if another has it, ("full", why) if something
    could not be written, the claim included, ("failed", why)."""
    try:
        with store.claim(cell.address) as mine:
            if not mine:
                return ("done", "was finished") if store.has(cell.address) else ("busy", None)
            record, weights = run_cell(cell, store.work(cell.address), _teller(line))
            store.add(record, weights if cell.weights else None)
            return "done", record["status"]
    except (BrokenPipeError, EOFError):
        raise
    except OSError as error:
        return "full", f"{error}"
    except Exception as error:  # noqa: BLE001 - whatever it was, the sweep has to stop and say so
        return "failed", f"{type(error).__name__}: {error}\n{traceback.format_exc()}"


def _teller(line: Connection):
    """A function that passes rows of metrics on, at most one every WORD seconds and every evaluation."""
    last = 0.0

    def tell(row: Mapping[str, Any]) -> None:
        nonlocal last
        if row.get("accuracy") is not None or time.monotonic() - last > WORD:
            last = time.monotonic()
            line.send(("row", {key: row.get(key) for key in ("step", "loss", "accuracy", "seconds", "link_shares")}))

    return tell
