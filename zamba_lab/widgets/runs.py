"""Runs: one seen while it trains, and an ablation study looked at from all sides."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING

import ipywidgets as widgets
import numpy as np

from zamba_lab import report, viz
from zamba_lab.ablate.claims import label
from zamba_lab.widgets.panel import EVERY, Panel, choice, figure_output, show_figure, slider

if TYPE_CHECKING:
    from zamba_lab.ablate import Report

ENDS = "_bits_per_byte"  # of the names under which a row holds its evaluations
MOST = 600  # points drawn of a curve; more are thinned
VIEWS = {"learning curves": report.learning, "recall against memory": report.recall, "quality against work": report.work}


class TrainingPanel(widgets.HBox):
    """The loss on the left and bits per byte of held-out text on the right; `train` calls it with each row.

        live = widgets.TrainingPanel(steps=config.steps, title="phase 1")
        display(live)
        train(model, data, config, folder, validation, on_row=[live])

    Args:
        steps: where the axis ends; as far as the run has come if left out.
        every: seconds between two drawings. An evaluation and the last step are drawn at once.

    A run that goes on shows what came before if it is given `rows` (`read_metrics(folder)`).
    """

    def __init__(self, steps: int | None = None, title: str = "", every: float = 1.0, rows=()):
        self.steps, self.title, self.every = steps, title, every
        self.rows, self.drawn = list(rows), -np.inf
        self.span = None if steps is None else (0, steps)
        self.outputs = figure_output("50%"), figure_output("50%")
        super().__init__(list(self.outputs), layout=widgets.Layout(width="100%"))
        self.draw()

    def __call__(self, row) -> None:
        self.rows.append(dict(row))
        evaluated = any(name.endswith(ENDS) and value is not None for name, value in row.items())
        if evaluated or row["step"] == self.steps or time.monotonic() - self.drawn >= self.every:
            self.draw()

    def draw(self) -> None:
        """Both figures, of the rows there are."""
        self.drawn = time.monotonic()
        show_figure(self.outputs[0], self.loss())
        show_figure(self.outputs[1], self.held_out())

    def loss(self):
        """Each step's, faint, and the mean over a twentieth of the run."""
        steps, losses = (np.array([row[name] for row in self.rows], dtype=np.float64) for name in ("step", "loss"))
        wide = max(1, len(losses) // 20)
        means = np.convolve(losses, np.ones(wide) / wide, "valid") if len(losses) else losses
        thin = slice(None, None, max(1, len(losses) // MOST))
        speed = sum(row["tokens"] for row in self.rows[-1:]) / max(1e-9, sum(row["seconds"] for row in self.rows))
        progress = f"step {int(steps[-1]):,}, {speed:,.0f} tokens a second" if len(steps) else "not begun"
        lines, each = {"mean": (steps[wide - 1 :][thin], means[thin])}, {"each step": (steps[thin], losses[thin])}
        words = self.title or "Training", "step", "loss (nats a token)", progress
        return viz.curves(lines, *words, faint=each, x_range=self.span)

    def held_out(self):
        """Every text's bits per byte, and what has not been evaluated yet is not there."""
        names = dict.fromkeys(name for row in self.rows for name in row if name.endswith(ENDS))
        points = {name.removesuffix(ENDS): [(row["step"], row[name]) for row in self.rows if row.get(name) is not None] for name in names}
        lines = {name: tuple(zip(*pairs)) for name, pairs in points.items() if pairs}
        return viz.curves(lines, "Held-out text", "step", "bits a byte", "lower is better", x_range=self.span)


def study_panel(results: Report, axis: str = EVERY) -> Panel:
    """The effects of each arm, by metric; its learning curve; what it costs. Everything is worked out again for fewer seeds.

    axis: the family of arms that is shown first.
    """
    families = list(dict.fromkeys(arm.family for arm in results.study.every_arm[1:]))
    seeds = results.study.seeds

    @cache
    def part(axis: str, last: int) -> Report:
        arms = None if axis == EVERY else [arm.name for arm in results.study.every_arm if arm.family == axis]
        return results.only(arms, last + 1)

    def draw(view: str, axis: str, seeds: int):
        return VIEWS[view](part(axis, seeds)) if view in VIEWS else report.effects(part(axis, seeds), view)

    views = [(f"effects: {label(metric)}", metric) for metric in results.study.metrics] + [(name, name) for name in VIEWS]
    axes = choice("axis", [("every axis", EVERY)] + [(name, name) for name in families], "which arms, beside the base")
    axes.value = axis
    last = slider("seeds, from 0 to", len(seeds), "the cells of the first seeds alone", value=len(seeds) - 1)
    return Panel(draw, view=choice("show", views, "what is drawn"), axis=axes, seeds=last)
