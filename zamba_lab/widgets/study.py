"""An ablation study looked at from all sides: which arms, by which measure, and what fewer seeds would have said."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from zamba_lab import report
from zamba_lab.ablate.claims import label
from zamba_lab.widgets.panel import Panel, choice, slider
from zamba_lab.widgets.panels import EVERY

if TYPE_CHECKING:
    from zamba_lab.ablate import Report

VIEWS = {"learning curves": report.learning, "recall against memory": report.recall, "quality against work": report.work}


def study_panel(found: Report, axis: str = EVERY) -> Panel:
    """The effects of each arm, by metric; its learning curve; what it costs. Everything is worked out again for fewer seeds.

    axis: the family of arms that is shown first.
    """
    families = list(dict.fromkeys(arm.family for arm in found.study.every_arm[1:]))
    seeds = found.study.seeds

    @cache
    def part(axis: str, last: int) -> Report:
        arms = None if axis == EVERY else [arm.name for arm in found.study.every_arm if arm.family == axis]
        return found.only(arms, last + 1)

    def draw(view: str, axis: str, seeds: int):
        shown = part(axis, seeds)
        return VIEWS[view](shown) if view in VIEWS else report.effects(shown, view)

    views = [(f"effects: {label(metric)}", metric) for metric in found.study.metrics] + [(name, name) for name in VIEWS]
    last = slider("seeds, from 0 to", len(seeds), "the cells of the first seeds alone")
    last.value = len(seeds) - 1
    axes = choice("axis", [("every axis", EVERY)] + [(name, name) for name in families], "which arms, beside the base")
    axes.value = axis
    return Panel(draw, view=choice("show", views, "what is drawn"), axis=axes, seeds=last)
