"""A sweep as it goes: one table, redrawn in place, in a terminal or a notebook; a line now and then where neither is."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from zamba_lab.ablate.cell import loudness

EVERY = 0.5  # seconds between two drawings
LINE_EVERY = 30.0  # where nothing can be redrawn


class Quiet:
    """Shows nothing. The interface of `Live`."""

    def begin(self, plan: Any, left: list[Any], workers: int) -> None:
        """A sweep begins: its plan, the planned cells that are left, and how many work."""

    def row(self, planned: Any, row: Mapping[str, Any]) -> None:
        """A cell says where it is."""

    def done(self, planned: Any, status: str) -> None:
        """A cell is finished."""

    def draw(self) -> None:
        """Now would be a good time."""

    def end(self) -> None:
        """The sweep is over, or stopped."""


class Live(Quiet):
    """The arms with their cells: finished, running with step, loss and accuracy, and when all will be done at the latest.

    out: where a terminal's table goes. A cell that solves its task early ends early, so the time left is an upper bound.
    """

    def __init__(self, out: TextIO | None = None):
        self.out = sys.stderr if out is None else out
        self.handle, self.lines, self.drawn = None, 0, 0.0
        self.loud: dict[str, str] = {}  # arm -> what is to be said of how loud its block starts

    def begin(self, plan: Any, left: list[Any], workers: int) -> None:
        self.plan, self.workers, self.began = plan, workers, time.monotonic()
        waiting = {one.cell.address for one in left}
        self.status = {one.cell.address: "finished before" for one in plan.cells if one.cell.address not in waiting}
        self.running: dict[str, tuple[Any, Mapping[str, Any]]] = {}
        self.worked, self.first = 0.0, None  # FLOPs done since a cell first said something: starting takes seconds
        self.draw()

    def row(self, planned: Any, row: Mapping[str, Any]) -> None:
        self.first = self.first or time.monotonic()
        if words := loudness(row.get("link_shares") or ()):
            self.loud[planned.arm] = words
        address = planned.cell.address
        _, before = self.running.get(address, (None, {}))
        share = (row["step"] - before.get("step", row["step"])) / planned.cell.train.steps
        self.worked += share * planned.cell.flops
        keep = {key: before[key] for key in ("accuracy",) if row.get(key) is None and key in before}
        self.running[address] = planned, {**row, **keep}

    def done(self, planned: Any, status: str) -> None:
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
        left = sum(one.cell.flops for one in self.plan.cells if one.cell.address not in self.status)
        left -= sum(row["step"] / one.cell.train.steps * one.cell.flops for one, row in self.running.values())
        return left * (time.monotonic() - self.first) / self.worked if self.worked else None

    def rows(self) -> list[list[str]]:
        """The table: arm, finished of all, solved, diverged, and what is running."""
        found = [["arm", "cells", "solved", "diverged", "running"]]
        for arm in dict.fromkeys(one.arm for one in self.plan.cells):
            own = [one.cell.address for one in self.plan.cells if one.arm == arm]
            states = [self.status.get(address) for address in own]
            running = [
                f"seed {one.seed}: {row['step']}/{one.cell.train.steps} loss {row['loss']:.3f}"
                + (f" acc {row['accuracy']:.2f}" if row.get("accuracy") is not None else "")
                for one, row in self.running.values()
                if one.arm == arm
            ]
            running += [f"(!) {self.loud[arm]}"] if arm in self.loud else []
            found.append(
                [
                    arm,
                    f"{sum(state is not None for state in states)}/{len(own)}",
                    str(states.count("solved")),
                    str(states.count("diverged")),
                    "; ".join(running),
                ]
            )
        return found

    def headline(self) -> str:
        known = {one.cell.address for one in self.plan.cells}
        eta = self.eta()
        more = f", then more cells of {len(self.plan.waiting)} arms" if self.plan.waiting else ""
        so_far = clock(time.monotonic() - self.began)
        return (
            f"{len(known & self.status.keys())} of {len(known)} cells on {self.workers} workers, {so_far} so far, "
            f"{'at most ' + clock(eta) + ' left' if eta is not None else 'no pace yet'}{more}"
        )

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
            self.out.write("; ".join([self.headline(), *(f"(!) {arm}: {words}" for arm, words in self.loud.items())]) + "\n")
        self.out.flush()

    def _draw_html(self) -> None:
        from IPython.display import HTML, display

        head, *body = self.rows()
        cells = ["<tr>" + "".join(f"<th>{html.escape(cell)}</th>" for cell in head) + "</tr>"]
        cells += ["<tr>" + "".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in body]
        shown = HTML(f"<p>{html.escape(self.headline())}</p><table>{''.join(cells)}</table>")
        if self.handle is None:
            self.handle = display(shown, display_id=True)
        else:
            self.handle.update(shown)


def aligned(rows: list[list[str]]) -> list[str]:
    """Rows of cells as lines, columns below each other."""
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def clock(seconds: float) -> str:
    """1:02:03, or 2:03."""
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def in_notebook() -> bool:
    """Whether a notebook's kernel runs this; IPython is not imported to find out."""
    shell = sys.modules.get("IPython") and sys.modules["IPython"].get_ipython()
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"
