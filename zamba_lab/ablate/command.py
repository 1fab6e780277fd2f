"""`zamba-lab ablate plan | register | run | report STUDY`."""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # nothing is imported to list the commands
    from zamba_lab.ablate.planning import Plan
    from zamba_lab.ablate.store import Store
    from zamba_lab.ablate.study import Study

FLAGS: dict[str, dict[str, Any]] = {
    "what": dict(
        choices=("plan", "register", "run", "report"),
        help="what it would do, cost and find; write it down before it is run; do it, or go on with it; what was found",
    ),
    "study": dict(help="a .yaml or .json file, or a study that comes with the lab, such as quick, placement or capacity"),
    "--store": dict(
        metavar="FOLDER", help="where results are kept (runs/NAME; for a report, those that come with the lab if there are none)"
    ),
    "--workers": dict(type=int, metavar="N", help="run: processes of one thread each; one a core if left out"),
    "--ray": dict(nargs="?", const="", metavar="ADDRESS", help="run: on a Ray cluster, or a local one; needs the extra ray"),
    "--allow-import": dict(
        action="append",
        default=[],
        metavar="MODULE:NAME",
        help="let the study's task be this function, which is imported and called: only if you trust it; again for more",
    ),
    "--time": dict(action="store_true", help="plan: make a few steps of each arm to say how long all will last"),
    "--reason": dict(default="", metavar="TEXT", help="register: why a study that was registered is changed"),
    "--out": dict(metavar="FOLDER", help="report: where report.md and report.html go (the store, or runs/NAME-report)"),
    "--json": dict(action="store_true", help="plan, report: as data"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The four commands and their flags."""
    for flag, more in FLAGS.items():
        parser.add_argument(flag, **more)


def main(arguments: argparse.Namespace) -> int:
    """Do it. 0: done; 1: it had to stop, and why; 130: stopped, and to be gone on with."""
    from zamba_lab.ablate.planning import study_file
    from zamba_lab.ablate.runner import SweepStopped
    from zamba_lab.ablate.study import read_study

    arguments.file = study_file(arguments.study)
    study = read_study(arguments.file, arguments.allow_import)
    folder = Path(arguments.store or f"runs/{study.name}")
    try:
        return {"plan": _plan, "register": _register, "run": _run, "report": _report}[arguments.what](study, folder, arguments)
    except BrokenPipeError:  # `| head` has read enough
        raise
    except (OSError, SweepStopped) as error:
        print(f"zamba-lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; {folder} has what was finished, and the same command goes on from there", file=sys.stderr)
        return 130


def _plan(study: Study, folder: Path, arguments: argparse.Namespace) -> int:
    from zamba_lab.ablate.design import false_verdicts
    from zamba_lab.ablate.planning import plan
    from zamba_lab.ablate.store import Store
    from zamba_lab.ablate.tables import COSTS, plain, table

    store = Store(folder) if (folder / "store.json").exists() else None  # planning makes nothing
    facts = costs(study, plan(study, store), store, arguments.time)
    facts |= {"claims": asked(study), "false verdicts": false_verdicts(study), "flags": flagged(study, arguments.file)}
    if arguments.json:
        print(json.dumps(facts, indent=1))
        return 0
    families = {arm.name: arm.family for arm in study.every_arm}
    columns = {"arm": lambda row: plain(row["arm"]), "family": lambda row: plain(families[row["arm"]]), **COSTS}
    columns["fair"] = lambda row: "" if row["ok"] else "(!)"
    by = f"matched by {study.match.by}" if study.match else "not matched"
    print(f"{study.name}: {len(study.every_arm)} arms, {by}\n\n{table(columns, facts['arms'])}\n")
    print(f"{facts['cells']} cells, {facts['finished']} of them finished; at most {facts['flops']:.3g} FLOPs to do")
    if unfair := [plain(row["arm"]) for row in facts["arms"] if not row["ok"]]:
        print(f"could not be matched: {', '.join(unfair)}")
    if facts["core_hours"] is not None:
        print(f"at most {facts['core_hours']:.2f} core hours, {facts['estimated']}")
    if facts["claims"]:
        print("\n" + table({name: lambda row, name=name: plain(str(row[name])) for name in facts["claims"][0]}, facts["claims"]) + "\n")
    print(f"simulated studies of this design in which nothing is true and something is confirmed: {facts['false verdicts']:.1%}")
    print("".join(f"\n{line}" for line in facts["flags"]))
    return 0


def asked(study: Study) -> list[dict[str, Any]]:
    """A row for each claim: what it takes, and how likely it is to be confirmed if what it expects is so; None: not known."""
    from zamba_lab.ablate.design import least_of, power, proposals

    return [
        {
            "claim": claim.text,
            "measure": claim.measure,
            "expected": claim.expected,
            "scatter": claim.scatter,
            "seeds at least": least_of(study, claim),
            f"power with {len(study.seeds)}": None if math.isnan(share) else round(share, 3),
            f"seeds for {study.power:g}": seeds,
        }
        for claim, share, seeds in zip(study.claims, power(study), proposals(study))
    ]


def flagged(study: Study, file: Path) -> list[str]:
    """What is wrong with a design, each with the line of the file."""
    from zamba_lab.ablate.design import flags
    from zamba_lab.yaml_file import line_of, read_yaml

    lines = read_yaml(file, "a study's file")[1]
    return [f"{file}:{line_of(flag.place, lines)}: {flag.words}" for flag in flags(study)]


def costs(study: Study, todo: Plan, store: Store | None, measure: bool) -> dict[str, Any]:
    """What is left to do, at most: cells that solve their task end early. The cells of arms without a rate yet are counted."""
    from zamba_lab.ablate import matching
    from zamba_lab.ablate.planning import cell_of

    left = todo.left(store) if store else list(todo.cells)
    cells = Counter(planned.arm for planned in left) + Counter({arm: len(study.seeds) for arm in todo.waiting})
    flops = sum(cell_of(study, arm, study.seeds[0], study.train.lr).flops * n for arm, n in cells.items())
    records = store.records(planned.cell.address for planned in todo.cells) if store else {}
    hours = how = None
    if measure:
        hours = sum(seconds_per_step(study, arm) * study.train.steps * n for arm, n in cells.items()) / 3600
        how = "by steps made here and now, evaluations not included"
    elif known := [row["seconds"] / row["steps"] / row["flops_per_token"] for row in records.values() if row["steps"]]:
        hours = flops / (3 * study.train.batch * study.train.length) * statistics.median(known) / 3600
        how = "by the pace of the finished cells"
    return {
        "study": study.name,
        "arms": matching.table(study.matched.items(), study.match.by if study.match else None, study.task.length),
        "cells": len(todo.cells) + len(todo.waiting) * len(study.seeds),
        "finished": len(todo.cells) - len(left) if store else 0,
        "flops": flops,
        "core_hours": hours,
        "estimated": how,
    }


def seconds_per_step(study: Study, arm: str, steps: int = 3) -> float:
    """Seconds of a training step of an arm, on one thread: the best of a few after the first."""
    import torch

    from zamba_lab.model import Zamba
    from zamba_lab.train.step import adamw, train_step

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = Zamba(study.matched[arm].config).train()
    optimiser, seconds = adamw(model, study.train), []
    for step in range(steps + 1):
        batch = study.task.batch(study.seeds[0], step, study.train.batch)
        began = time.perf_counter()
        train_step(model, optimiser, [tuple(batch)], study.train.lr, study.train.clip)
        seconds.append(time.perf_counter() - began)
    torch.set_num_threads(threads)
    return min(seconds[1:])


def _register(study: Study, folder: Path, arguments: argparse.Namespace) -> int:
    from zamba_lab.ablate.registry import register
    from zamba_lab.ablate.store import Store

    for line in flagged(study, arguments.file):
        print(line, file=sys.stderr)
    line = register(study, Store(folder), arguments.reason)
    print(f"{study.name} is registered in {folder}: {line['time']}, SHA-256 {line['sha256']}")
    return 0


def _run(study: Study, folder: Path, arguments: argparse.Namespace) -> int:
    from zamba_lab.ablate.reporting import report
    from zamba_lab.ablate.runner import run

    for line in flagged(study, arguments.file):
        print(line, file=sys.stderr)
    if arguments.ray is not None:
        from zamba_lab.ablate.cluster import run_on_ray

        run_on_ray(study, folder, arguments.ray or None)
    else:
        run(study, folder, arguments.workers)
    print(report(study, folder))
    return 0


def _report(study: Study, folder: Path, arguments: argparse.Namespace) -> int:
    from zamba_lab.ablate.planning import STUDIES, stored
    from zamba_lab.ablate.reporting import report

    if (folder / "store.json").exists():
        result = report(study, folder)
    elif arguments.store is None and (STUDIES / arguments.study / "store").exists():
        # beside the place of a store, which is a folder of its own
        result, folder = report(*stored(arguments.study)), folder.with_name(f"{folder.name}-report")
    else:
        raise ValueError(f"there is no store in {str(folder)!r}: zamba-lab ablate run makes one")
    if arguments.json:
        print(json.dumps(result.as_dict(), indent=1))
        return 0
    arguments.write(result, Path(arguments.out or folder))
    print(result)
    return 0
