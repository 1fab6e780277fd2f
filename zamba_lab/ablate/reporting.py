"""What a study found, as values and as text: claims first, then contrasts, outcomes, and what is needed to believe them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from zamba_lab.ablate import matching
from zamba_lab.ablate.arms import BASE
from zamba_lab.ablate.cell import loudness
from zamba_lab.ablate.claims import label
from zamba_lab.ablate.planning import Plan, plan
from zamba_lab.ablate.statistics import LEAST_SEEDS, seeds_to_be_equivalent
from zamba_lab.ablate.store import Store
from zamba_lab.ablate.study import Study
from zamba_lab.ablate.verdicts import Contrast, Judged, Outcome, by_arm, contrasts, judged, margin_of, outcomes, reach_of


@dataclass(frozen=True)
class Report:
    """Of a study and a store. found: arm -> seed -> record of the finished cells that count. Everything else follows."""

    study: Study
    plan: Plan
    found: Mapping[str, Mapping[int, Mapping[str, Any]]]

    @cached_property
    def outcomes(self) -> list[Outcome]:
        return outcomes(self.study, self.plan, self.found)

    @cached_property
    def contrasts(self) -> list[Contrast]:
        return contrasts(self.study, self.found)

    @cached_property
    def judged(self) -> list[Judged]:
        return judged(self.study, self.found)

    @cached_property
    def costs(self) -> list[dict[str, Any]]:
        """What each arm costs, and what of it could not be matched."""
        by = self.study.match.by if self.study.match else None
        return matching.table(self.study.matched.items(), by, self.study.task.length)

    def only(self, arms: Sequence[str] | None = None, seeds: int | None = None) -> Report:
        """The report of a part: these arms and the base, the first so many seeds; all of what is left out."""
        kept = self.study.seeds[:seeds]
        part = {
            arm: {seed: cell for seed, cell in cells.items() if seed in kept}
            for arm, cells in self.found.items()
            if arms is None or arm == BASE or arm in arms
        }
        return replace(self, found={arm: cells for arm, cells in part.items() if cells})

    @property
    def missing(self) -> int:
        """Cells that count and are not finished; those of an arm without a learning rate yet included."""
        return len(self.study.every_arm) * len(self.study.seeds) - sum(map(len, self.found.values()))

    def as_dict(self) -> dict[str, Any]:
        """The numbers, as JSON has them: what is infinite or not known is None."""
        whole = {
            "study": self.study.name,
            "missing": self.missing,
            "claims": [asdict(one) for one in self.judged],
            "contrasts": [asdict(one) for one in self.contrasts],
            "outcomes": [asdict(one) for one in self.outcomes],
            "costs": self.costs,
            "tuning": {arm: {str(rate): row for rate, row in tried.items()} for arm, tried in self.plan.tried.items()},
        }
        return _finite(whole)

    def markdown(self) -> str:
        """The whole report."""
        return "\n\n".join([f"# {self.study.name}", *self.sections.values()]) + "\n"

    __str__ = _repr_markdown_ = markdown

    @cached_property
    def sections(self) -> dict[str, str]:
        """The parts of the report in their order, by name; one that has nothing to say is not there."""
        every = {
            "summary": self._summary(),
            "claims": self._claims(),
            **{metric: self._contrasts(metric) for metric in self.study.metrics},
            "outcomes": self._outcomes(),
            "measures": self._slices(),
            "costs": self._costs(),
            "rates": self._tuning(),
            "links": self._links(),
            "reading": self._reading(),
        }
        return {name: text for name, text in every.items() if text}

    def _summary(self) -> str:
        done = sum(map(len, self.found.values()))
        diverged = sum(one.diverged for one in self.outcomes)
        seconds = sum(cell["seconds"] for cells in self.found.values() for cell in cells.values())
        words = [
            f"{done} cells of {len(self.found)} arms on {_task(self.study.task)}; {diverged} diverged; {seconds / 3600:.2f} core hours."
        ]
        if self.missing:
            words.append(f"**{self.missing} cells are missing: what follows is preliminary.**")
        return " ".join(words)

    def _claims(self) -> str:
        rows = [
            [
                one.claim.text,
                f"{one.contrast.arm} against {one.contrast.than}: {one.claim.direction} {one.claim.metric}"
                + (f" by {one.claim.threshold:g}" if one.claim.threshold else ""),
                _effect(one.contrast),
                _answer(one),
            ]
            for one in self.judged
        ]
        return _section(
            "Claims",
            "Written down before the cells were run; tested in the direction that each names, corrected with "
            "the others on the axis of its arm that are of its metric.",
            ["claim", "measure", "effect", "answer"],
            rows,
        )

    def _contrasts(self, metric: str) -> str:
        rows = [
            [one.arm, one.family, str(one.seeds), _effect(one), _p(one.p), _p(one.p_alike), _number(one.least), one.verdict]
            for one in self.contrasts
            if one.metric == metric
        ]
        margin = margin_of(self.study, metric)
        needed = seeds_to_be_equivalent(margin, reach_of(self.study, metric), self.study.alpha)
        words = (
            f"Mean paired difference with its BCa interval (95 %), p of the exact sign-flip test and of TOST within ±{margin:g}, "
            "both after Holm in their family, for this metric alone, and the least difference that so many seeds find with power "
            f'{self.study.power:g}. "Equivalent" would take {needed:,} seeds or more.'
        )
        return _section(
            f"Against the base: {label(metric)}",
            words,
            ["arm", "family", "seeds", "difference", "p", "p alike", "detectable", "verdict"],
            rows,
        )

    def _outcomes(self) -> str:
        rows = [
            [
                one.arm,
                f"{one.solved}/{one.seeds} [{one.solve_low:.2f}, {one.solve_high:.2f}]",
                str(one.diverged),
                _number(one.steps.median),
                f"{one.steps.mean:.0f}",
                f"{one.accuracy:.3f} [{one.accuracy_low:.3f}, {one.accuracy_high:.3f}]",
                f"{one.loss:.3f}",
                f"{one.rate:g}",
            ]
            for one in self.outcomes
        ]
        levels = f"Chance is {self.study.task.chance:.3f}"
        if self.study.task.plateau is not None:
            levels += f"; having seen the answers without binding them gives {self.study.task.plateau:.3f}"
        words = (
            f"{levels}. Solved: {self.study.solved:.0%} on two fresh samples, interval by Wilson. Steps: Kaplan-Meier "
            "median, and mean up to the budget."
        )
        return _section("Outcomes", words, ["arm", "solved", "diverged", "median steps", "mean steps", "accuracy", "loss", "lr"], rows)

    def _slices(self) -> str:
        tables = {arm: [_more(cell) for cell in cells.values()] for arm, cells in self.found.items()}
        names = sorted({name for cells in tables.values() for cell in cells for name in cell})
        rows = [
            [arm, *(_number(_mean([cell[name] for cell in cells if name in cell]), 3) for name in names)] for arm, cells in tables.items()
        ]
        return _section("More measures", "Means over seeds.", ["arm", *names], rows if names else [])

    def _costs(self) -> str:
        rows = [
            [
                row["arm"],
                f"{row['params']:,}",
                f"{row['flops']:,.0f}",
                f"{row['state']:,}",
                f"{100 * row['off']:+.2f} %",
                row["turned"],
                "yes" if row["ok"] else "**could not be matched**",
            ]
            for row in self.costs
        ]
        how = self.study.match
        by = f"Matched by {how.by} to {how.tolerance:.0%}." if how else "Not matched: parameters off the base's."
        words = (
            f"{by} Shared weights count once, invocations every time; FLOPs of one token and state bytes at "
            f"{self.study.task.length} positions."
        )
        return _section("Costs", words, ["arm", "parameters", "FLOPs/token", "state bytes", "off", "turned", "fair"], rows)

    def _tuning(self) -> str:
        rows = [
            [
                arm,
                f"{rate:g}" + " *" * (self.plan.rates.get(arm) == rate),
                str(row["solved"]),
                str(row["diverged"]),
                f"{row['steps']:.0f}",
                f"{row['accuracy']:.3f}",
                _number(row["loss"], 3),
            ]
            for arm, tried in self.plan.tried.items()
            for rate, row in tried.items()
        ]
        seeds = ", ".join(map(str, self.study.tuning_seeds))
        return _section(
            "Learning rates",
            f"Tried on seeds {seeds}, which count for nothing else; * is used.",
            ["arm", "lr", "solved", "diverged", "steps", "accuracy", "loss"],
            rows,
        )

    def _links(self) -> str:
        shares = {arm: [share for cell in cells.values() for share in cell["link_shares"]] for arm, cells in self.found.items()}
        rows = [[arm, f"{min(some):.2f} .. {max(some):.2f}", loudness(some)] for arm, some in shares.items() if some]
        return _section(
            "How loud attention starts",
            "RMS of what the link gives over RMS of the stream, before training, over seeds and invocations.",
            ["arm", "share", ""],
            rows,
        )

    def _reading(self) -> str:
        return (
            "## How to read this\n\n"
            f'The seed is the unit. Below {LEAST_SEEDS} seeds there is no verdict, and "no verdict" '
            'never means "no effect". Nor does "alike": those seeds were within the margin, and seeds that fail now and then '
            'may not have been among them, up to the share named. "Equivalent" says that the mean is within the margin however '
            "seeds scatter, and needs enough of them to rule such failures out. Where no difference is detectable (-), the family is "
            "too large for so few seeds, and only a claim that named its direction can be confirmed. A diverged cell counts as "
            "unsolved, at chance accuracy, with the loss of guessing."
        )


def report(study: Study, store: str | Path | Store) -> Report:
    """What a store has of a study, finished or not. Raises ValueError if it has no cell that counts."""
    store = store if isinstance(store, Store) else Store(store)
    todo = plan(study, store)
    found = by_arm(todo, store)
    if not found:
        raise ValueError(f"the store {str(store.folder)!r} has no finished cell of {study.name!r} that counts: run it first")
    return Report(study, todo, {arm: found[arm] for arm in (one.name for one in study.every_arm) if arm in found})


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def _section(title: str, words: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return f"## {title}\n\n{words}\n\n{table(head, rows)}" if rows else ""


def _more(cell: Mapping[str, Any]) -> dict[str, float]:
    """What was measured besides, by name: the losses of slices, the accuracy on other tasks."""
    return json.loads(cell["slices"]) | {f"accuracy on {name}": value for name, value in json.loads(cell["also"]).items()}


def _answer(one: Judged) -> str:
    alike = one.answer == "unclear" and one.contrast.verdict.startswith("alike")
    return f"**{one.answer}**" + f": {one.contrast.verdict}" * alike


def _effect(one: Contrast) -> str:
    return f"{one.difference:+.3f} [{one.low:+.3f}, {one.high:+.3f}]"


def _number(value: float, digits: int | None = None) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:.{digits}f}" if digits is not None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _task(task: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in task.facts().items() if not isinstance(value, dict | list))


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value
