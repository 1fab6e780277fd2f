"""What a study found, as values and as text: claims first, then contrasts, outcomes, and what is needed to believe them."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from zamba_lab.ablate import matching
from zamba_lab.ablate.arms import BASE
from zamba_lab.ablate.cell import link_warning
from zamba_lab.ablate.planning import Plan, plan
from zamba_lab.ablate.statistics import LEAST_SEEDS, seeds_to_be_equivalent
from zamba_lab.ablate.store import Store
from zamba_lab.ablate.study import Study, label
from zamba_lab.ablate.verdicts import ClaimResult, Contrast, Outcome, by_arm, claim_results, contrasts, margin_of, outcomes, reach_of

READING = f"""## How to read this

The seed is the unit. Below {LEAST_SEEDS} seeds there is no verdict, and "no verdict" never means "no effect". Nor does "alike": those \
seeds were within the margin, and seeds that fail now and then may not have been among them, up to the share named. "Equivalent" says \
that the mean is within the margin however seeds scatter, and needs enough of them to rule such failures out. Where no difference is \
detectable (-), the family is too large for so few seeds, and only a claim that named its direction can be confirmed. A diverged cell \
counts as unsolved, at chance accuracy, with the loss of guessing."""


@dataclass(frozen=True)
class Report:
    """Of a study and a store. cells: arm -> seed -> record of the finished cells that count. Everything else follows."""

    study: Study
    plan: Plan
    cells: Mapping[str, Mapping[int, Mapping[str, Any]]]

    @cached_property
    def outcomes(self) -> list[Outcome]:
        return outcomes(self.study, self.plan, self.cells)

    @cached_property
    def contrasts(self) -> list[Contrast]:
        return contrasts(self.study, self.cells)

    @cached_property
    def claims(self) -> list[ClaimResult]:
        return claim_results(self.study, self.cells)

    @cached_property
    def costs(self) -> list[dict[str, Any]]:
        """What each arm costs, and what of it could not be matched."""
        by = self.study.match.by if self.study.match else None
        return matching.table(self.study.matched.items(), by, self.study.task.length)

    def only(self, arms: Sequence[str] | None = None, seeds: int | None = None) -> Report:
        """The report of a part: these arms and the base, and the first so many seeds; None: all."""
        kept = self.study.seeds[:seeds]
        part = {
            arm: {seed: cell for seed, cell in cells.items() if seed in kept}
            for arm, cells in self.cells.items()
            if arms is None or arm == BASE or arm in arms
        }
        return replace(self, cells={arm: cells for arm, cells in part.items() if cells})

    @property
    def missing(self) -> int:
        """Cells that count and are not finished; those of an arm without a learning rate yet included."""
        return len(self.study.every_arm) * len(self.study.seeds) - sum(map(len, self.cells.values()))

    def as_dict(self) -> dict[str, Any]:
        """The numbers, as JSON has them: what is infinite or not known is None."""
        return _finite(
            {
                "study": self.study.name,
                "missing": self.missing,
                "claims": [asdict(result) for result in self.claims],
                "contrasts": [asdict(contrast) for contrast in self.contrasts],
                "outcomes": [asdict(outcome) for outcome in self.outcomes],
                "costs": self.costs,
                "tuning": {arm: {str(rate): row for rate, row in tried.items()} for arm, tried in self.plan.tried.items()},
            }
        )

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
            "measures": self._measures(),
            "costs": self._costs(),
            "rates": self._rates(),
            "links": self._links(),
            "reading": READING,
        }
        return {name: text for name, text in every.items() if text}

    def _summary(self) -> str:
        done = sum(map(len, self.cells.values()))
        diverged = sum(outcome.diverged for outcome in self.outcomes)
        hours = sum(cell["seconds"] for cells in self.cells.values() for cell in cells.values()) / 3600
        task = ", ".join(f"{name} {value}" for name, value in self.study.task.facts().items() if not isinstance(value, dict | list))
        words = f"{done} cells of {len(self.cells)} arms on {plain(task)}; {diverged} diverged; {hours:.2f} core hours."
        return words + (f" **{self.missing} cells are missing: what follows is preliminary.**" if self.missing else "")

    def _claims(self) -> str:
        columns = {
            "claim": lambda result: plain(result.claim.text),
            "measure": lambda result: plain(_measure(result)),
            "effect": lambda result: _effect(result.contrast),
            "answer": _answer,
        }
        words = (
            "Written down before the cells were run; tested in the direction that each names, corrected with "
            "the others on the axis of its arm that are of its metric."
        )
        return _section("Claims", words, columns, self.claims)

    def _contrasts(self, metric: str) -> str:
        margin, power = margin_of(self.study, metric), self.study.power
        needed = seeds_to_be_equivalent(margin, reach_of(self.study, metric), self.study.alpha)
        words = (
            f"Mean paired difference with its BCa interval (95 %), p of the exact sign-flip test and of TOST within ±{margin:g}, "
            "both after Holm in their family, for this metric alone, and the least difference that so many seeds find with power "
            f'{power:g}. "Equivalent" would take {needed:,} seeds or more.'
        )
        columns = {
            "arm": lambda contrast: plain(contrast.arm),
            "family": lambda contrast: plain(contrast.family),
            "seeds": lambda contrast: str(contrast.seeds),
            "difference": _effect,
            "p": lambda contrast: _p(contrast.p),
            "p alike": lambda contrast: _p(contrast.p_alike),
            "detectable": lambda contrast: _number(contrast.least),
            "verdict": lambda contrast: contrast.verdict,
        }
        rows = [contrast for contrast in self.contrasts if contrast.metric == metric]
        return _section(f"Against the base: {plain(label(metric))}", words, columns, rows)

    def _outcomes(self) -> str:
        plateau = self.study.task.plateau
        seen = "" if plateau is None else f"; having seen the answers without binding them gives {plateau:.3f}"
        words = (
            f"Chance is {self.study.task.chance:.3f}{seen}. Solved: {self.study.solved:.0%} on two fresh samples, interval by Wilson. "
            "Steps: Kaplan-Meier median, and mean up to the budget."
        )
        columns = {
            "arm": lambda row: plain(row.arm),
            "solved": lambda row: f"{row.solved}/{row.seeds} [{row.solve_low:.2f}, {row.solve_high:.2f}]",
            "diverged": lambda row: str(row.diverged),
            "median steps": lambda row: _number(row.steps.median),
            "mean steps": lambda row: f"{row.steps.mean:.0f}",
            "accuracy": lambda row: f"{row.accuracy:.3f} [{row.accuracy_low:.3f}, {row.accuracy_high:.3f}]",
            "loss": lambda row: f"{row.loss:.3f}",
            "lr": lambda row: f"{row.rate:g}",
        }
        return _section("Outcomes", words, columns, self.outcomes)

    def _measures(self) -> str:
        """The losses of slices and the accuracy on other tasks."""
        values: dict[str, dict[str, list[float]]] = {arm: {} for arm in self.cells}  # arm -> measure -> seeds
        for arm, cells in self.cells.items():
            for cell in cells.values():
                also = {f"accuracy on {name}": value for name, value in json.loads(cell["also"]).items()}
                for name, value in (json.loads(cell["slices"]) | also).items():
                    values[arm].setdefault(name, []).append(value)

        def mean(name: str) -> Callable[[str], str]:
            return lambda arm: _number(sum(seeds) / len(seeds), 3) if (seeds := values[arm].get(name)) else "-"

        names = sorted({name for measures in values.values() for name in measures})
        columns = {"arm": plain, **{plain(name): mean(name) for name in names}}
        return _section("More measures", "Means over seeds.", columns, self.cells if names else ())

    def _costs(self) -> str:
        match = self.study.match
        by = f"Matched by {match.by} to {match.tolerance:.0%}." if match else "Not matched: parameters off the base's."
        words = (
            f"{by} Shared weights count once, invocations every time; FLOPs of one token and state bytes at "
            f"{self.study.task.length} positions."
        )
        fair = {"fair": lambda row: "yes" if row["ok"] else "**could not be matched**"}
        return _section("Costs", words, {"arm": lambda row: plain(row["arm"]), **COSTS, **fair}, self.costs)

    def _rates(self) -> str:
        rates = self.plan.rates
        columns = {
            "arm": lambda row: plain(row["arm"]),
            "lr": lambda row: f"{row['rate']:g}" + " *" * (rates.get(row["arm"]) == row["rate"]),
            "solved": lambda row: str(row["solved"]),
            "diverged": lambda row: str(row["diverged"]),
            "steps": lambda row: f"{row['steps']:.0f}",
            "accuracy": lambda row: f"{row['accuracy']:.3f}",
            "loss": lambda row: _number(row["loss"], 3),
        }
        rows = [{"arm": arm, "rate": rate, **row} for arm, tried in self.plan.tried.items() for rate, row in tried.items()]
        words = f"Tried on seeds {', '.join(map(str, self.study.tuning_seeds))}, which count for nothing else; * is used."
        return _section("Learning rates", words, columns, rows)

    def _links(self) -> str:
        shares = {arm: [share for cell in cells.values() for share in cell["link_shares"]] for arm, cells in self.cells.items()}
        columns = {
            "arm": plain,
            "share": lambda arm: f"{min(shares[arm]):.2f} .. {max(shares[arm]):.2f}",
            "": lambda arm: link_warning(shares[arm]),
        }
        words = "RMS of the link's output over RMS of the residual stream, before training, over seeds and invocations."
        return _section("How loud attention starts", words, columns, [arm for arm in shares if shares[arm]])


COSTS: dict[str, Callable[[Mapping[str, Any]], str]] = {  # of a row of `matching.table`
    "parameters": lambda row: f"{row['params']:,}",
    "FLOPs/token": lambda row: f"{row['flops']:,.0f}",
    "state bytes": lambda row: f"{row['state']:,}",
    "off": lambda row: f"{100 * row['off']:+.2f} %",
    "adjusted": lambda row: row["adjusted"],
}


def report(study: Study, store: str | Path | Store) -> Report:
    """What a store has of a study, finished or not. Raises ValueError if it has no cell that counts."""
    store = store if isinstance(store, Store) else Store(store)
    todo = plan(study, store)
    cells = by_arm(todo, store)
    if not cells:
        raise ValueError(f"the store {str(store.folder)!r} has no finished cell of {study.name!r} that counts: run it first")
    return Report(study, todo, {arm.name: cells[arm.name] for arm in study.every_arm if arm.name in cells})


def plain(text: str) -> str:
    """A name or a claim as it stands in Markdown: one line, without HTML, links or control characters of its own."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return html.escape(line, quote=False).replace("[", "&#91;").replace("|", "\\|")


def table(columns: Mapping[str, Callable[[Any], str]], rows: Iterable[Any]) -> str:
    """A Markdown table: heading -> the text of a row's cell."""
    lines = [list(columns), *([text(row) for text in columns.values()] for row in rows)]
    head, *body = ("| " + " | ".join(line) + " |" for line in lines)
    return "\n".join([head, "|" + "---|" * len(columns), *body])


def _section(title: str, words: str, columns: Mapping[str, Callable[[Any], str]], rows: Iterable[Any]) -> str:
    return f"## {title}\n\n{words}\n\n{table(columns, rows)}" if rows else ""


def _measure(result: ClaimResult) -> str:
    claim = result.claim
    by = f" by {claim.threshold:g}" if claim.threshold else ""
    return f"{claim.arm} against {claim.than}: {claim.direction} {claim.metric}{by}"


def _answer(result: ClaimResult) -> str:
    alike = result.answer == "unclear" and result.contrast.verdict.startswith("alike")
    return f"**{result.answer}**" + f": {result.contrast.verdict}" * alike


def _effect(contrast: Contrast) -> str:
    return f"{contrast.difference:+.3f} [{contrast.low:+.3f}, {contrast.high:+.3f}]"


def _number(value: float, digits: int | None = None) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:.{digits}f}" if digits is not None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
