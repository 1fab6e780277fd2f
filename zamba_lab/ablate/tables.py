"""Values as they stand in a report: Markdown tables, names made harmless, numbers, and what JSON can hold."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from zamba_lab.ablate.gates import GateResult
from zamba_lab.ablate.statistics import at_most
from zamba_lab.ablate.verdicts import Result


def plain(text: str) -> str:
    """A name or a claim as it stands in Markdown: one line, without HTML, links or control characters of its own."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return html.escape(line, quote=False).replace("[", "&#91;").replace("|", "\\|")


def table(columns: Mapping[str, Callable[[Any], str]], rows: Iterable[Any]) -> str:
    """A Markdown table: heading -> the text of a row's cell."""
    lines = [list(columns), *([text(row) for text in columns.values()] for row in rows)]
    head, *body = ("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join([head, "|" + "---|" * len(columns), *body])


def section(title: str, words: str, columns: Mapping[str, Callable[[Any], str]], rows: Iterable[Any]) -> str:
    return f"## {title}\n\n{words}\n\n{table(columns, rows)}" if rows else ""


def number(value: float, digits: int | None = None) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:.{digits}f}" if digits is not None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def p_text(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: finite(item) for name, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def spread(row: GateResult) -> str:
    values = f": {number(min(row.values), 4)} .. {number(max(row.values), 4)}" if row.values else ""
    return f"{row.held}/{len(row.values)}{values}"


def answer(row: Result) -> str:
    if row.why:
        return f"{row.answer}: {plain(row.why)}"
    may = f"; {row.within} of {row.seeds} seeds within it (up to {at_most(row.seeds - row.within, row.seeds):.0%} may not be)"
    return f"**{row.answer}**" + may * (row.claim.direction == "equal")


def with_interval(value: float, low: float, high: float, form: str) -> str:
    return f"{value:{form}}" if math.isnan(low) else f"{value:{form}} [{low:{form}}, {high:{form}}]"


EFFECT: dict[str, Callable[[Result], str]] = {
    "median": lambda row: with_interval(row.median, row.low, row.high, "+.3f"),
    "mean": lambda row: f"{row.mean:+.3f}",
}


COSTS: dict[str, Callable[[Mapping[str, Any]], str]] = {  # of a row of `matching.table`
    "parameters": lambda row: f"{row['params']:,}",
    "FLOPs/token": lambda row: f"{row['flops']:,.0f}",
    "state bytes": lambda row: f"{row['state']:,}",
    "off": lambda row: f"{100 * row['off']:+.2f} %",
    "adjusted": lambda row: row["adjusted"],
}
