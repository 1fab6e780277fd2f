"""A study written down in its store before its cells are run, so that anyone can check what was asked before anything was seen.

    register(study, store)                       # before the first cell that counts
    register(study, store, "two seeds more")     # a later change: added, never in place of what was there

STORE/registered/NAME.jsonl has a line for each: when, what the study is, its SHA-256, the version of the code, the planned cells, the power
of each claim, and how many of the cells that count were finished by then.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from zamba_lab.ablate.cell import CODE
from zamba_lab.ablate.claims import Claim, Gate
from zamba_lab.ablate.design import false_verdicts, flags, power
from zamba_lab.ablate.planning import plan
from zamba_lab.ablate.store import Store
from zamba_lab.ablate.study import Study
from zamba_lab.ablate.tables import plain
from zamba_lab.version import __version__
from zamba_lab.writing import locked, write


def facts_of(study: Study) -> dict[str, Any]:
    """All that a study says, as JSON has it: two studies with the same facts are the same study.

    What has its default is left out, so that a field which a later version adds does not make a study another.
    """
    values = _said(study)
    values |= {"seeds": study.seeds, "base": asdict(study.base), "task": study.task.facts(), "train": study.train.facts()}
    values |= {"also": {name: task.facts() for name, task in study.also.items()}} if study.also else {}
    values |= {"match": asdict(study.match)} if study.match else {}
    values |= {name: [_said(one) for one in getattr(study, name)] for name in ("claims", "gates") if name in values}
    return json.loads(json.dumps(values, default=dict))


def _said(one: Study | Claim | Gate) -> dict[str, Any]:
    """The fields that differ from their defaults."""
    values = {entry.name: getattr(one, entry.name) for entry in fields(one)}
    empty = {entry.name for entry in fields(one) if entry.default_factory is not MISSING and not values[entry.name]}
    return {entry.name: values[entry.name] for entry in fields(one) if values[entry.name] != entry.default and entry.name not in empty}


def sha256_of(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def register(study: Study, store: Store, reason: str = "") -> dict[str, Any]:
    """Write the study down in the store, and return the line.

    Raises ValueError if it is there already as it is, or as something else and no reason for the change is given.
    """
    file = _file(study, store)
    file.parent.mkdir(exist_ok=True)
    with locked(file.with_suffix(".lock"), 60.0):
        before, facts = registrations(study, store), facts_of(study)
        if before and before[-1]["sha256"] == sha256_of(facts):
            raise ValueError(f"{study.name} is registered as it is, on {before[-1]['time']}")
        if before and not reason:
            raise ValueError(f"{study.name} is registered, with another {differences(before[-1]['study'], facts)}: say why (--reason TEXT)")
        line = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "reason": reason,
            "sha256": sha256_of(facts),
            "version": __version__,
            "code": CODE,
            **_planned(study, store),
            "power": [None if math.isnan(share) else share for share in power(study)],
            "false verdicts": false_verdicts(study),
            "flags": [flag.words for flag in flags(study)],
            "study": facts,
        }
        write(file, "".join(json.dumps(each) + "\n" for each in (*before, line)).encode())
    return line


def _planned(study: Study, store: Store) -> dict[str, Any]:
    todo, done = plan(study, store), store.finished()
    counting = [planned.cell.address for planned in todo.cells if not planned.tuning]
    return {
        "cells": [planned.cell.address for planned in todo.cells],
        "waiting": [f"{arm}, seed {seed}" for arm in todo.waiting for seed in study.seeds],  # their learning rates are not known yet
        "counting cells finished": sum(address in done for address in counting),
    }


def registrations(study: Study, store: Store) -> list[dict[str, Any]]:
    """The lines of a study, the first first; none if it was never registered there."""
    file = _file(study, store)
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def check(study: Study, store: Store) -> None:
    """Raise ValueError if the study was registered there and is another one now."""
    before, facts = registrations(study, store), facts_of(study)
    if before and before[-1]["sha256"] != sha256_of(facts):
        raise ValueError(
            f"{study.name} was registered on {before[-1]['time']} and is another study now, in {differences(before[-1]['study'], facts)}. "
            "Take the change back, or register it: zamba-lab ablate register FILE --reason TEXT"
        )


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The fields of a study that are not the same."""
    return ", ".join(name for name in dict.fromkeys((*old, *new)) if old.get(name) != new.get(name)) or "nothing"


def told(study: Study, store: Store) -> str:
    """When a study was registered, and what was changed since, in Markdown."""
    lines = registrations(study, store)
    if not lines:
        return "Not registered: nothing in this store shows that the claims were there before the results."
    words = []
    for k, line in enumerate(lines):
        done = line["counting cells finished"]
        what = f"Changed in {differences(lines[k - 1]['study'], line['study'])} on" if k else "Registered on"
        when = "before any cell that counts" if not done else f"**when {done} of the cells that count were finished**"
        why = f" Why: {plain(line['reason'])}" if line["reason"] else ""
        words.append(f"{what} {line['time']}, {when}; version {line['version']}, code {line['code']}, SHA-256 {line['sha256'][:12]}.{why}")
    now = facts_of(study)
    if lines[-1]["sha256"] != sha256_of(now):
        words.append(f"**This report is of another study than was registered: it differs in {differences(lines[-1]['study'], now)}.**")
    return " ".join(words)


def _file(study: Study, store: Store) -> Path:
    return store.folder / "registered" / f"{study.name}.jsonl"
