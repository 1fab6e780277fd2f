"""A sweep as it goes: one table, redrawn in place, in a terminal or a notebook; a line now and then where neither is."""

import html
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from zamba_lab.ablate.cell import link_warning
from zamba_lab.ablate.planning import Plan, Planned

EVERY = 0.5  # seconds between two drawings
LINE_EVERY = 30.0  # where nothing can be redrawn


class Quiet:
    """Shows nothing. The interface of `Live`."""

    def begin(self, plan: Plan, finished: Mapping[str, str], workers: int) -> None:
        """A sweep begins: its plan, the status of each cell that is in the store (by address), and how many work."""

    def row(self, planned: Planned, row: Mapping[str, Any]) -> None:
        """A cell reports a row of its metrics."""

    def done(self, planned: Planned, status: str) -> None:
        """A cell is finished."""

    def draw(self) -> None:
        """Called about twice a second."""

    def end(self) -> None:
        """The sweep is over, or stopped."""


class Live(Quiet):
    """The arms with their cells: finished, running with step, loss and accuracy, and when all will be done at the latest.

    out: where a terminal's table goes. A cell that solves its task early ends early, so the time left is an upper bound.
    """

    def __init__(self, out: TextIO | None = None):
        self.out = sys.stderr if out is None else out
        self.handle, self.lines, self.drawn = None, 0, 0.0
        self.warnings: dict[str, str] = {}  # arm -> that its attention starts too quiet or too loud

    def begin(self, plan: Plan, finished: Mapping[str, str], workers: int) -> None:
        self.plan, self.workers, self.began = plan, workers, time.monotonic()
        self.status = {planned.cell.address: finished[planned.cell.address] for planned in plan.cells if planned.cell.address in finished}
        self.running: dict[str, tuple[Planned, Mapping[str, Any]]] = {}
        self.worked, self.first = 0.0, None  # FLOPs done since a cell first reported: starting takes seconds
        self.draw()

    def row(self, planned: Planned, row: Mapping[str, Any]) -> None:
        self.first = self.first or time.monotonic()
        if warning := link_warning(row.get("link_shares") or ()):
            self.warnings[planned.arm] = warning
        _, before = self.running.get(planned.cell.address, (None, {}))
        self.worked += (row["step"] - before.get("step", row["step"])) / planned.cell.train.steps * planned.cell.flops
        accuracy = before.get("accuracy") if row.get("accuracy") is None else row["accuracy"]
        self.running[planned.cell.address] = planned, {**row, "accuracy": accuracy}

    def done(self, planned: Planned, status: str) -> None:
        self.running.pop(planned.cell.address, None)
        self.status[planned.cell.address] = status

    def end(self) -> None:
        self.drawn = 0.0
        self.draw()
        self.lines = 0
        if self.handle is None and self.out.isatty():
            self.out.write("\n")

    def eta(self) -> float | None:
        """Seconds until every cell has made all its steps at the pace so far; None before there is a pace."""
        left = {planned.cell.address: planned.cell.flops for planned in self.plan.cells if planned.cell.address not in self.status}
        begun = sum(row["step"] / planned.cell.train.steps * planned.cell.flops for planned, row in self.running.values())
        return (sum(left.values()) - begun) * (time.monotonic() - self.first) / self.worked if self.worked else None

    def rows(self) -> list[list[str]]:
        """The table: arm, finished of all, solved, diverged, and what is running."""
        arms: dict[str, set[str]] = {}
        for planned in self.plan.cells:
            arms.setdefault(planned.arm, set()).add(planned.cell.address)
        table = [["arm", "cells", "solved", "diverged", "running"]]
        for arm, addresses in arms.items():
            states = [self.status[address] for address in addresses if address in self.status]
            running = [
                f"seed {planned.seed}: {row['step']}/{planned.cell.train.steps} loss {row['loss']:.3f}"
                + (f" acc {row['accuracy']:.2f}" if row["accuracy"] is not None else "")
                for planned, row in self.running.values()
                if planned.arm == arm
            ]
            running += [f"(!) {self.warnings[arm]}"] if arm in self.warnings else []
            counts = str(states.count("solved")), str(states.count("diverged"))
            table.append([arm, f"{len(states)}/{len(addresses)}", *counts, "; ".join(running)])
        return table

    def headline(self) -> str:
        eta, total = self.eta(), len({planned.cell.address for planned in self.plan.cells})
        more = f", then more cells of {len(self.plan.waiting)} arms" if self.plan.waiting else ""
        left = f"at most {clock(eta)} left" if eta is not None else "no pace yet"
        return f"{len(self.status)} of {total} cells on {self.workers} workers, {clock(time.monotonic() - self.began)} so far, {left}{more}"

    def draw(self) -> None:
        notebook, now = in_notebook(), time.monotonic()
        if now - self.drawn < (EVERY if notebook or self.out.isatty() else LINE_EVERY):
            return
        self.drawn = now
        if notebook:
            self._draw_html()
        elif self.out.isatty():
            text = "\n".join([self.headline(), *aligned(self.rows())])
            self.out.write(f"\x1b[{self.lines}F\x1b[J" * bool(self.lines) + text + "\n")
            self.lines = text.count("\n") + 1
        else:
            self.out.write("; ".join([self.headline(), *(f"(!) {arm}: {warning}" for arm, warning in self.warnings.items())]) + "\n")
        self.out.flush()

    def _draw_html(self) -> None:
        from IPython.display import HTML, display

        head, *body = self.rows()
        lines = ["".join(f"<th>{html.escape(cell)}</th>" for cell in head)]
        lines += ["".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in row) for row in body]
        table = "".join(f"<tr>{line}</tr>" for line in lines)
        page = HTML(f"<p>{html.escape(self.headline())}</p><table>{table}</table>")
        if self.handle is None:
            self.handle = display(page, display_id=True)
        else:
            self.handle.update(page)


def aligned(rows: list[list[str]]) -> list[str]:
    """Rows of cells as lines, columns below each other."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def clock(seconds: float) -> str:
    """1:02:03, or 2:03."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def in_notebook() -> bool:
    """Whether a notebook's kernel runs this; IPython is not imported to find out."""
    shell = sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"
