"""`zamba-lab ablate plan | run | report STUDY`."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # nothing is imported to list the commands
    from zamba_lab.ablate.planning import Plan
    from zamba_lab.ablate.store import Store
    from zamba_lab.ablate.study import Study


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The three commands and their flags."""
    parser.add_argument(
        "what", choices=("plan", "run", "report"), help="what it would do and cost; do it, or go on with it; what was found"
    )
    parser.add_argument("study", help="a .yaml or .json file, or a study in the box: quick, real-text, full")
    parser.add_argument(
        "--store",
        metavar="FOLDER",
        help="where results are kept (runs/NAME of the study; for a report, those in the box if there are none)",
    )
    parser.add_argument("--workers", type=int, metavar="N", help="run: processes of one thread each; one a core if left out")
    parser.add_argument("--ray", nargs="?", const="", metavar="ADDRESS", help="run: on a Ray cluster, or a local one; needs the extra ray")
    parser.add_argument(
        "--allow-import",
        action="append",
        default=[],
        metavar="MODULE:NAME",
        help="let the study's task be this function, which is imported and called: only if you trust it; again for more",
    )
    parser.add_argument("--time", action="store_true", help="plan: make a few steps of each arm to say how long all will take")
    parser.add_argument(
        "--out", metavar="FOLDER", help="report: where report.md and report.html go (the store; runs/NAME-report for one in the box)"
    )
    parser.add_argument("--json", action="store_true", help="plan, report: as data")


def main(given: argparse.Namespace) -> int:
    """Do it. 0: done; 1: it had to stop, and why; 130: stopped, and to be gone on with."""
    from zamba_lab.ablate.box import study_file
    from zamba_lab.ablate.runner import SweepStopped
    from zamba_lab.ablate.study import read_study

    study = read_study(study_file(given.study), given.allow_import)
    folder = Path(given.store or f"runs/{study.name}")
    try:
        return {"plan": _plan, "run": _run, "report": _report}[given.what](study, folder, given)
    except (OSError, SweepStopped) as error:
        print(f"zamba-lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; {folder} has what was finished, and the same command goes on from there", file=sys.stderr)
        return 130


def _plan(study: Study, folder: Path, given: argparse.Namespace) -> int:
    from zamba_lab.ablate.planning import plan
    from zamba_lab.ablate.reporting import table
    from zamba_lab.ablate.store import Store

    store = Store(folder) if (folder / "store.json").exists() else None  # planning makes nothing
    todo = plan(study, store)
    facts = costs(study, todo, store, given.time)
    if given.json:
        print(json.dumps(facts, indent=1))
        return 0
    by = f"matched by {study.match.by}" if study.match else "not matched"
    head = ["arm", "family", "parameters", "FLOPs/token", "state bytes", "off", "turned"]
    rows = [
        [
            row["arm"],
            arm.family,
            f"{row['params']:,}",
            f"{row['flops']:,.0f}",
            f"{row['state']:,}",
            f"{100 * row['off']:+.2f} %" + ("" if row["ok"] else " (!)"),
            row["turned"],
        ]
        for row, arm in zip(facts["arms"], study.every_arm)
    ]
    print(f"{study.name}: {len(study.every_arm)} arms, {by}\n\n{table(head, rows)}\n")
    print(f"{facts['cells']} cells, {facts['finished']} of them finished; at most {facts['flops']:.3g} FLOPs to do")
    if unfair := [row["arm"] for row in facts["arms"] if not row["ok"]]:
        print(f"could not be matched: {', '.join(unfair)}")
    if short := too_few_seeds(study):
        print(
            f"{len(study.seeds)} seeds cannot give a verdict, other than on a claim, in: "
            + ", ".join(f"{family} ({n} seeds needed)" for family, n in short.items())
        )
    if facts["core_hours"] is not None:
        print(f"at most {facts['core_hours']:.2f} core hours, {facts['estimated']}")
    return 0


def too_few_seeds(study: Study) -> dict[str, int]:
    """The families in which no contrast can have a verdict, however large its effect, and the seeds that they need."""
    from collections import Counter

    from zamba_lab.ablate.statistics import seeds_needed

    sizes = Counter(arm.family for arm in study.every_arm[1:])
    needed = {family: seeds_needed(size, study.alpha) for family, size in sizes.items()}
    return {family: n for family, n in needed.items() if n > len(study.seeds)}


def costs(study: Study, todo: Plan, store: Store | None, measure: bool) -> dict[str, Any]:
    """What is left to do, at most: cells that solve their task end early. The cells of arms without a rate yet are counted."""
    from zamba_lab.ablate import matching

    left = todo.left(store) if store else list(todo.cells)
    per_arm = _flops(study)
    flops = sum(one.cell.flops for one in left) + sum(per_arm[arm] * len(study.seeds) for arm in todo.waiting)
    records = store.records(one.cell.address for one in todo.cells) if store else {}
    whole = len(todo.cells) + len(todo.waiting) * len(study.seeds)
    hours, how = None, None
    if measure:
        seconds = {arm.name: timed(study, arm.name) for arm in study.every_arm}
        steps = [(one.arm, 1) for one in left] + [(arm, len(study.seeds)) for arm in todo.waiting]
        hours = sum(seconds[arm] * study.train.steps * n for arm, n in steps) / 3600
        how = "by steps made here and now, evaluations not included"
    elif known := [row["seconds"] / row["steps"] / row["flops_per_token"] for row in records.values() if row["steps"]]:
        hours = flops / (3 * study.train.batch * study.train.length) * statistics.median(known) / 3600
        how = "by the pace of the finished cells"
    by = study.match.by if study.match else None
    return {
        "study": study.name,
        "arms": matching.table(study.matched.items(), by, study.task.length),
        "cells": whole,
        "finished": len(todo.cells) - len(left) if store else 0,
        "flops": flops,
        "core_hours": hours,
        "estimated": how,
    }


def _flops(study: Study) -> dict[str, float]:
    from zamba_lab.ablate.planning import cell_of

    return {arm.name: cell_of(study, arm.name, study.seeds[0], study.train.lr).flops for arm in study.every_arm}


def timed(study: Study, arm: str, steps: int = 3) -> float:
    """Seconds of a training step of an arm, the best of a few after the first."""
    import time

    import torch

    from zamba_lab.model import Zamba
    from zamba_lab.train.step import adamw, train_step

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = Zamba(study.matched[arm].config).train()
    optimiser, took = adamw(model, study.train), []
    for step in range(steps + 1):
        batch = study.task.batch(study.seeds[0], step, study.train.batch)
        began = time.perf_counter()
        train_step(model, optimiser, [tuple(batch)], study.train.lr, study.train.clip)
        took.append(time.perf_counter() - began)
    torch.set_num_threads(threads)
    return min(took[1:])


def _run(study: Study, folder: Path, given: argparse.Namespace) -> int:
    from zamba_lab.ablate.reporting import report
    from zamba_lab.ablate.runner import run

    if given.ray is not None:
        from zamba_lab.ablate.cluster import run_on_ray

        run_on_ray(study, folder, given.ray or None)
    else:
        run(study, folder, given.workers)
    print(report(study, folder))
    return 0


def _report(study: Study, folder: Path, given: argparse.Namespace) -> int:
    from zamba_lab.ablate.box import FOLDER, stored
    from zamba_lab.ablate.reporting import report

    if (folder / "store.json").exists():
        found = report(study, folder)
    elif given.store is None and (FOLDER / given.study / "store").exists():
        # beside the place of a store, which takes a folder of its own
        found, folder = report(*stored(given.study)), folder.with_name(f"{folder.name}-report")
    else:
        raise ValueError(f"there is no store in {str(folder)!r}: zamba-lab ablate run makes one")
    if given.json:
        print(json.dumps(found.as_dict(), indent=1))
        return 0
    given.write(found, Path(given.out or folder))
    print(found)
    return 0
