"""An ablation study's report with figures: Markdown, and one HTML file that needs nothing beside it.

result = ablate.report(study, "runs/store")
report.figures(result)["accuracy"]                   # a plotly figure
report.write(result, "runs/store")                   # report.md, report.html
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zamba_lab import viz
from zamba_lab.ablate.claims import label
from zamba_lab.ablate.reporting import Report
from zamba_lab.ablate.values import margin_of
from zamba_lab.writing import write as write_whole

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

STYLE = """body{font:15px/1.5 Inter,'Segoe UI',Helvetica,Arial,sans-serif;color:#1f2a37}
body{max-width:1100px;margin:2em auto;padding:0 1em}table{border-collapse:collapse;font-size:13px}
th,td{border-bottom:1px solid #e5e9ef;padding:4px 10px;text-align:left}th{color:#64748b}
.wide{overflow-x:auto}"""


def figures(result: Report) -> dict[str, Figure]:
    """By name: the effects on each metric of the study, learning curves, accuracy against state bytes, loss against FLOPs."""
    made = {metric: effects(result, metric) for metric in result.study.metrics if any(row.metric == metric for row in result.contrasts)}
    return made | {"learning": learning(result), "state": recall(result), "flops": work(result)}


def effects(result: Report, metric: str) -> Figure:
    """A row for each arm: its median difference from the base, with the interval and the verdict."""
    rows = [row for row in result.contrasts if row.metric == metric]
    seeds = max((row.seeds for row in rows), default=0)
    return viz.intervals(
        *([getattr(row, name) for row in rows] for name in ("median", "low", "high", "arm", "verdict")),
        f"What each change does to {metric}",
        f"difference: {label(metric)}",
        margin_of(result.study, metric),
        f"against the base, {seeds} {'seed' if seeds == 1 else 'seeds'}, paired; medians with 95 % intervals; shaded: too small to matter",
    )


def learning(result: Report) -> Figure:
    """Held-out accuracy as training goes on, a line and a band of seeds for each arm."""
    task = result.study.task
    levels = {"chance": task.chance} | ({} if task.plateau is None else {"seen, not bound": task.plateau})
    return viz.learning(
        {arm: curve(cells) for arm, cells in result.cells.items()},
        "Learning curves",
        "held-out accuracy",
        levels,
        "median of the seeds, and from the least to the greatest; a seed that solved its task stays there",
    )


def recall(result: Report) -> Figure:
    """Accuracy against the bytes that decoding carries, a point for each arm."""
    rows = result.outcomes
    bounds = [row.accuracy_low for row in rows], [row.accuracy_high for row in rows]
    return _against(result, "state", "accuracy", "Recall against memory", "bytes that decoding carries", "accuracy", *bounds)


def work(result: Report) -> Figure:
    """Held-out loss against the work of a token, a point for each arm."""
    return _against(result, "flops", "loss", "Quality against work", "forward FLOPs a token", "held-out loss, nats")


def _against(result: Report, cost: str, measure: str, *words: Any) -> Figure:
    """A measure of each arm's outcome against one of its costs."""
    costs = {row["arm"]: row[cost] for row in result.costs}
    arms = [row.arm for row in result.outcomes]
    return viz.trade_off([costs[arm] for arm in arms], [getattr(row, measure) for row in result.outcomes], arms, *words)


def curve(cells: Mapping[int, Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Steps (n,) and the accuracy of each seed there, (seed, n); one that solved its task keeps its last, another has none."""
    steps = sorted({point["step"] for cell in cells.values() for point in cell["curve"]})
    rows = []
    for cell in cells.values():
        at = {point["step"]: point["accuracy"] for point in cell["curve"]}
        last = cell["curve"][-1]["accuracy"] if cell["status"] == "solved" else math.nan
        rows.append([at.get(step, last if step > cell["steps"] else math.nan) for step in steps])
    return np.array(steps, dtype=float), np.array(rows, dtype=float).reshape(len(cells), len(steps))


def as_html(result: Report) -> str:
    """The report as one page: tables, figures, and plotly's own code, so that it opens anywhere and without a network."""
    drawn = [figure.to_html(full_html=False, include_plotlyjs=k == 0) for k, figure in enumerate(figures(result).values())]
    title = html.escape(result.study.name)
    head = f"<meta charset='utf-8'><title>{title}</title><style>{STYLE}</style>"
    return (
        f"<!DOCTYPE html>\n<html lang='en'><head>{head}</head><body>\n"
        f"{page(result.markdown())}\n<h2>Figures</h2>\n" + "\n".join(drawn) + "\n</body></html>\n"
    )


def page(markdown: str) -> str:
    """The HTML of the headings, tables and paragraphs that a report has."""
    parts = []
    for block in markdown.strip().split("\n\n"):
        lines = block.split("\n")
        if level := re.match("#+ ", lines[0]):
            parts.append(f"<h{len(level[0]) - 1}>{inline(lines[0][len(level[0]) :])}</h{len(level[0]) - 1}>")
        elif lines[0].startswith("| "):
            rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in (lines[0], *lines[2:])]
            cells = [
                "<tr>" + "".join(f"<{tag}>{inline(cell.strip())}</{tag}>" for cell in row) + "</tr>"
                for tag, row in zip(["th"] + ["td"] * len(rows), rows)
            ]
            parts.append(f"<div class='wide'><table>{''.join(cells)}</table></div>")
        else:
            parts.append(f"<p>{inline(' '.join(lines))}</p>")
    return "\n".join(parts)


def inline(text: str) -> str:
    """HTML of a line of Markdown: bold, and the escapes of `reporting.plain`."""
    text = html.escape(html.unescape(text.replace("\\|", "|")), quote=False)
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text)


def write(result: Report, folder: str | Path) -> list[Path]:
    """report.md and report.html in a folder. Raises OSError if there is no room; what was there stays."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    files = {folder / "report.md": result.markdown(), folder / "report.html": as_html(result)}
    for file, text in files.items():
        write_whole(file, text.encode())
    return list(files)
