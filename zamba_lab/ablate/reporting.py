"""What a study found, as values and as text: claims first, then contrasts, outcomes, and what is needed to believe them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from zamba_lab.ablate import matching
from zamba_lab.ablate.arms import BASE
from zamba_lab.ablate.cell import link_warning
from zamba_lab.ablate.claims import label
from zamba_lab.ablate.design import false_verdicts
from zamba_lab.ablate.gates import GateResult, gate_results
from zamba_lab.ablate.planning import Plan, plan
from zamba_lab.ablate.registry import told
from zamba_lab.ablate.statistics import LEAST_SEEDS
from zamba_lab.ablate.store import Store
from zamba_lab.ablate.study import Study
from zamba_lab.ablate.tables import COSTS, EFFECT, answer, finite, number, p_text, plain, section, spread, with_interval
from zamba_lab.ablate.verdicts import Outcome, Result, by_arm, claim_results, contrasts, outcomes

READING = f"""## How to read this

The seed is the unit, and arms are paired by seed. A claim is confirmed if the exact sign-flip test of it, threshold included, holds \
after Holm's correction in its family; "by itself" is the same test uncorrected, and "refuted" there that its reverse holds. "Unclear" \
never means that there is no effect. A threshold above 0 assumes that differences scatter symmetrically; so does an equality that says \
symmetric, and one that does not assumes nothing and takes many seeds. Intervals are of the median: that of a mean of few seeds covers \
too little where seeds fail now and then, and below {LEAST_SEEDS} seeds there is none. Where a gate fails, or most seeds of all arms are \
at the end of a measure, there is no answer. A diverged cell counts as unsolved, at chance accuracy, with the loss of guessing."""


@dataclass(frozen=True)
class Report:
    """Of a study and a store. cells: arm -> seed -> record of the finished cells that count. registered: what the store says of when
    the study was written down (`registry.told`). Everything else follows."""

    study: Study
    plan: Plan
    cells: Mapping[str, Mapping[int, Mapping[str, Any]]]
    registered: str = ""

    @cached_property
    def outcomes(self) -> list[Outcome]:
        return outcomes(self.study, self.plan, self.cells)

    @cached_property
    def gates(self) -> list[GateResult]:
        return gate_results(self.study, self.plan, self.cells)

    @cached_property
    def contrasts(self) -> list[Result]:
        return contrasts(self.study, self.cells, gates=self.gates)

    @cached_property
    def claims(self) -> list[Result]:
        return claim_results(self.study, self.cells, self.gates)

    @cached_property
    def false_verdicts(self) -> float:
        """Share of simulated studies of this design in which something is confirmed and nothing is true."""
        return false_verdicts(self.study)

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
        return finite(
            {
                "study": self.study.name,
                "missing": self.missing,
                "history": [self.registered, *self.study.history],
                "gates": [asdict(result) for result in self.gates],
                "claims": [asdict(result) for result in self.claims],
                "false verdicts": self.false_verdicts,
                "contrasts": [asdict(contrast) | {"verdict": contrast.verdict} for contrast in self.contrasts],
                "outcomes": [asdict(outcome) for outcome in self.outcomes],
                "costs": self.costs,
                "tuning": {arm: {str(rate): row for rate, row in tried.items()} for arm, tried in self.plan.tried.items()},
                "edges": dict(self.plan.edges),
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
            "history": "\n\n".join(line for line in (self.registered, *map(plain, self.study.history)) if line),
            "summary": self._summary(),
            "gates": self._gates(),
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

    def _gates(self) -> str:
        columns = {
            "gate": lambda row: plain(row.gate.text),
            "measure": lambda row: plain(row.gate.measure),
            "arm": lambda row: plain(row.arm),
            "level": lambda row: number(row.level),
            "seeds": spread,
            "": lambda row: "not known yet" if row.passed is None else "holds" if row.passed else "**fails**",
        }
        return section(
            "Gates", "What must be so for the question to mean anything; from the least seed to the greatest.", columns, self.gates
        )

    def _claims(self) -> str:
        columns = {
            "claim": lambda row: plain(row.claim.text),
            "measure": lambda row: plain(row.claim.measure),
            **EFFECT,
            "by itself": lambda row: f"{row.alone} (p {p_text(row.p_against if row.alone == 'refuted' else row.p)})",
            "p, study": lambda row: p_text(row.p_study),
            "answer": answer,
        }
        families = len({claim.family for claim in self.study.claims})
        words = (
            f"{len(self.study.claims)} claims, corrected {'together' if families == 1 else f'in {families} families'}. In "
            f"{self.false_verdicts:.1%} of simulated studies of this design in which none of them is true, one is confirmed."
        )
        return section("Claims", words, columns, self.claims)

    def _contrasts(self, metric: str) -> str:
        words = f"p of the exact two-sided sign-flip test by itself, and the least difference found with power {self.study.power:g}."
        if self.study.claims:
            words = f"{words} Exploratory: answers are those to the claims."
        else:
            words = (
                f"{words} Verdicts after Holm over all {len(self.study.questions)} contrasts of the study; {self.false_verdicts:.1%} of "
            )
            words += "simulated studies of this design without any difference have one."
        columns = {
            "arm": lambda row: plain(row.arm),
            "seeds": lambda row: str(row.seeds),
            **EFFECT,
            "p": lambda row: p_text(row.p),
            "detectable": lambda row: number(row.least),
        } | ({} if self.study.claims else {"verdict": lambda row: row.verdict})
        rows = [contrast for contrast in self.contrasts if contrast.metric == metric]
        return section(f"Against the base: {plain(label(metric))}", words, columns, rows)

    def _outcomes(self) -> str:
        plateau = self.study.task.plateau
        seen = "" if plateau is None else f"; having seen the answers without binding them gives {plateau:.3f}"
        words = (
            f"Chance is {self.study.task.chance:.3f}{seen}. Solved: {self.study.solved:.0%} on two fresh samples, interval by Wilson. "
            "Steps: Kaplan-Meier median, and mean up to the budget. Accuracy: the median seed and its interval. Loss: the mean."
        )
        columns = {
            "arm": lambda row: plain(row.arm),
            "solved": lambda row: f"{row.solved}/{row.seeds} [{row.solve_low:.2f}, {row.solve_high:.2f}]",
            "diverged": lambda row: str(row.diverged),
            "median steps": lambda row: number(row.steps.median),
            "mean steps": lambda row: f"{row.steps.mean:.0f}",
            "accuracy": lambda row: with_interval(row.accuracy, row.accuracy_low, row.accuracy_high, ".3f"),
            "loss": lambda row: f"{row.loss:.3f}",
            "lr": lambda row: f"{row.rate:g}",
        }
        return section("Outcomes", words, columns, self.outcomes)

    def _measures(self) -> str:
        """The losses of slices and the accuracy on other tasks."""
        values: dict[str, dict[str, list[float]]] = {arm: {} for arm in self.cells}  # arm -> measure -> seeds
        for arm, cells in self.cells.items():
            for cell in cells.values():
                also = {f"accuracy on {name}": value for name, value in json.loads(cell["also"]).items()}
                for name, value in (json.loads(cell["slices"]) | also).items():
                    values[arm].setdefault(name, []).append(value)

        def mean(name: str) -> Callable[[str], str]:
            return lambda arm: number(sum(seeds) / len(seeds), 3) if (seeds := values[arm].get(name)) else "-"

        names = sorted({name for measures in values.values() for name in measures})
        columns = {"arm": plain, **{plain(name): mean(name) for name in names}}
        return section("More measures", "Means over seeds.", columns, self.cells if names else ())

    def _costs(self) -> str:
        match = self.study.match
        by = f"Matched by {match.by} to {match.tolerance:.0%}." if match else "Not matched: parameters off the base's."
        words = (
            f"{by} Shared weights count once, invocations every time; FLOPs of one token and state bytes at "
            f"{self.study.task.length} positions."
        )
        fair = {"fair": lambda row: "yes" if row["ok"] else "**could not be matched**"}
        return section("Costs", words, {"arm": lambda row: plain(row["arm"]), **COSTS, **fair}, self.costs)

    def _rates(self) -> str:
        tried, seeds = self.plan.tried, len(self.study.tuning_seeds)
        ladder = sorted({rate for summaries in tried.values() for rate in summaries})

        def cell(rate: float) -> Callable[[str], str]:
            def text(arm: str) -> str:
                row = tried[arm].get(rate)
                if row is None:
                    return "-"
                how = f"{row['solved']}/{seeds} in {row['steps']:.0f}, " if row["solved"] else ""
                return f"{how}{number(row['loss'], 3)}" + " *" * (self.plan.rates.get(arm) == rate)

            return text

        columns = {
            "arm": plain,
            **{f"{rate:g}": cell(rate) for rate in ladder},
            "the best is": lambda arm: {"": "inside", "only": "the only one"}.get(at := self.plan.edges.get(arm, "only"), f"**the {at}**"),
        }
        edges = sum(at in ("lowest", "highest") for at in self.plan.edges.values())
        on = ", ".join(map(str, self.study.tuning_seeds))
        words = f"Tried on seeds {on}, which count for nothing else: solved in steps, loss; * is used."
        words += f" **Of {len(tried)} arms {edges} do best at an edge of the rates: better ones may lie beyond.**" if edges else ""
        return section("Learning rates", words, columns, tried)

    def _links(self) -> str:
        shares = {arm: [share for cell in cells.values() for share in cell["link_shares"]] for arm, cells in self.cells.items()}
        columns = {
            "arm": plain,
            "share": lambda arm: f"{min(shares[arm]):.2f} .. {max(shares[arm]):.2f}",
            "": lambda arm: link_warning(shares[arm]),
        }
        words = "RMS of the link's output over RMS of the residual stream, before training, over seeds and invocations."
        return section("How loud attention starts", words, columns, [arm for arm in shares if shares[arm]])


def report(study: Study, store: str | Path | Store) -> Report:
    """What a store has of a study, finished or not. Raises ValueError if it has no cell that counts."""
    store = store if isinstance(store, Store) else Store(store)
    todo = plan(study, store)
    cells = by_arm(todo, store)
    if not cells:
        raise ValueError(f"the store {str(store.folder)!r} has no finished cell of {study.name!r} that counts: run it first")
    return Report(study, todo, {arm.name: cells[arm.name] for arm in study.every_arm if arm.name in cells}, told(study, store))
