"""Published weights held to published numbers: `make test-weights WEIGHTS=<folder>`. Writes a parity report.

`golden.json` has the numbers, where they are from and how far off is near enough. Without the weights, or without the
tokenizer beside them, a case is skipped, and the report and the last lines printed say so.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

import zamba_lab as zl

NUMBERS = Path(__file__).with_name("golden.json")
NEW_TOKENS = 10


@dataclass(frozen=True)
class Row:
    """One prompt of a case and what came of it. index: of the logit that is farthest off."""

    prompt: str
    expected: str
    found: str
    n_logits: int
    difference: float
    index: str
    near: bool

    @property
    def ok(self) -> bool:
        return self.near and self.found == self.expected


@dataclass(frozen=True)
class Result:
    """A case: its rows, or the sentence on why it was skipped."""

    case: dict
    rows: tuple[Row, ...] = ()
    skipped: str = ""

    @property
    def verdict(self) -> str:
        return "SKIPPED" if self.skipped else "ok" if all(row.ok for row in self.rows) else "DIFFERS"


def find(weights: Path | None, checkpoint: str) -> Path | None:
    """The folder of a checkpoint, which is named like its repository: `weights` itself or one in it."""
    if weights is None or not weights.is_dir():
        return None
    folders = [weights.resolve(), *sorted(weights.iterdir())]
    return next((one for one in folders if one.name.lower() == checkpoint.lower() and one.is_dir()), None)


def run(weights: Path | None, cases: list[dict]) -> Iterator[Result]:
    """Each case's result. A model that several cases in a row need is loaded once."""
    model, held = None, None
    for case in cases:
        folder, wanted = find(weights, case["checkpoint"]), (case["checkpoint"], case["dtype"])
        if folder is None:
            where = f"in {str(weights)!r}" if weights else "given: WEIGHTS=<folder> names where they are"
            yield Result(case, skipped=f"no folder named {case['checkpoint']} {where}")
            continue
        if wanted != held:
            model, held = None, wanted  # the old one goes before the new one comes
            model = zl.load(folder, dtype=getattr(torch, case["dtype"]))
        if model.tokenizer is None:
            yield Result(case, skipped=f"{str(folder)!r} has no tokenizer beside the weights, and the prompts are text")
            continue
        yield Result(case, tuple(compare(model, case)))


@torch.no_grad()
def compare(model: zl.Zamba, case: dict) -> Iterator[Row]:
    """All prompts of a case as one batch, padded on the left, as the numbers were made."""
    tokenizer, prompts = model.tokenizer, [row["prompt"] for row in case["rows"]]
    texts = [tokenizer.encode(prompt) for prompt in prompts]
    longest = max(map(len, texts))
    ids = torch.tensor([[tokenizer.pad_id or 0] * (longest - len(text)) + text for text in texts])
    mask = torch.tensor([[0] * (longest - len(text)) + [1] * len(text) for text in texts])
    logits = model(ids, mask=mask)[:, -1].float()
    new = zl.generate(model, ids, NEW_TOKENS, mask=mask)
    for row, text, found, tokens in zip(case["rows"], texts, logits, new):
        off = {i: abs(float(found[int(i)]) - value) for i, value in row["logits"].items()}
        near = all(off[i] <= case["atol"] + case["rtol"] * abs(value) for i, value in row["logits"].items())
        worst = max(off, key=off.get, default="")
        continued = tokenizer.decode(text + tokens.tolist())[len(tokenizer.decode(text)) :]
        yield Row(row["prompt"], row["continuation"], continued, len(off), off.get(worst, 0.0), worst, near)


def report(results: list[Result]) -> str:
    """The parity report, as Markdown."""
    data = json.loads(NUMBERS.read_text(encoding="utf-8"))
    lines = [
        "# Parity with published numbers",
        "",
        data["source"],
        "",
        f"Tolerances: {data['tolerances']}",
        "",
        f"torch {torch.__version__}, {torch.get_num_threads()} threads, on the CPU.",
        "",
        "| checkpoint | dtype | rows | logits | max difference | at id | tolerance | continuations equal | |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        case, rows = result.case, result.rows
        worst = max(rows, key=lambda row: row.difference, default=None)
        measured = (
            ["-"] * 4
            if worst is None
            else [
                str(sum(row.n_logits for row in rows)),
                f"{worst.difference:.2e}",
                worst.index,
                f"{sum(row.found == row.expected for row in rows)} of {len(rows)}",
            ]
        )
        measured.insert(3, f"{case['atol']:g} + {case['rtol']:g} of the value")
        lines.append("| " + " | ".join([case["checkpoint"], case["dtype"], str(len(case["rows"])), *measured, result.verdict]) + " |")
    for result in results:
        name = f"{result.case['checkpoint']}, {result.case['dtype']}"
        lines += [f"\nSKIPPED {name}: {result.skipped}."] * bool(result.skipped)
        lines += [
            f"\n{name}, {row.prompt!r}:\n  expected {row.expected!r}\n  found    {row.found!r}"
            for row in result.rows
            if row.found != row.expected
        ]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", nargs="?", type=Path, help="a folder of checkpoints, or one of them")
    parser.add_argument("--report", type=Path, default=Path("build/parity-with-weights.md"))
    parser.add_argument("--numbers", type=Path, default=NUMBERS, help="another golden.json")
    given = parser.parse_args(arguments)
    results = []
    for result in run(given.weights, json.loads(given.numbers.read_text(encoding="utf-8"))["cases"]):
        results.append(result)
        case = result.case
        print(f"{result.verdict:8} {case['checkpoint']}, {case['dtype']}, {len(case['rows'])} rows  {result.skipped}", flush=True)
    given.report.parent.mkdir(parents=True, exist_ok=True)
    given.report.write_text(report(results), encoding="utf-8")
    skipped = sum(bool(result.skipped) for result in results)
    print(f"The report is in {given.report}.")
    if skipped:
        print(
            f"SKIPPED {skipped} OF {len(results)} CASES: they need published weights and the tokenizer beside them. "
            "make test-weights WEIGHTS=<folder>, with a folder in it named like each repository: "
            + ", ".join(sorted({result.case["checkpoint"] for result in results if result.skipped}))
        )
    return int(any(result.verdict == "DIFFERS" for result in results))


if __name__ == "__main__":
    sys.exit(main())
