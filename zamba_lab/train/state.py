"""What a run needs to go on after it was stopped: one file, replaced whole, and the log cut back to it."""
from __future__ import annotations

import csv
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from zamba_lab.train.config import TrainConfig

FILE = "checkpoint.pt"
MOVABLE = {"train.steps", "train.decay", "train.final_lr", "train.schedule", "train.evaluate_every", "train.checkpoint_every"}


def run_facts(model: nn.Module, tokens: np.ndarray, config: TrainConfig) -> dict[str, object]:
    """What a run is: the model's config, the tokens and the arguments, as name -> value."""
    facts: dict[str, object] = {f"train.{name}": value for name, value in asdict(config).items()}
    if is_dataclass(getattr(model, "config", None)):
        facts |= {f"model.{name}": value for name, value in asdict(model.config).items()}
    return facts | {"tokens": len(tokens), "tokens.crc32": zlib.crc32(np.ascontiguousarray(tokens))}


def save_state(folder: Path, step: int, model: nn.Module, optimiser: torch.optim.Optimizer, facts: Mapping[str, object]) -> None:
    """Write the state after `step` steps; a kill at any moment leaves the old file or the new one."""
    content = {"step": step, "model": model.state_dict(), "optimiser": optimiser.state_dict(),
               "random": torch.get_rng_state(), "run": dict(facts)}
    part = folder / (FILE + ".part")
    with open(part, "wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, folder / FILE)


def load_state(folder: Path, model: nn.Module, optimiser: torch.optim.Optimizer, facts: Mapping[str, object],
               config: TrainConfig) -> int:
    """Fill model and optimiser from the folder's checkpoint, if there is one.

    Returns: the number of steps that are done: 0 without a checkpoint.

    Raises:
        ValueError: the checkpoint is of another run, or is no checkpoint.
    """
    file = folder / FILE
    if not file.exists():
        return 0
    try:
        content = torch.load(file, weights_only=True)
        known, step = content["run"], content["step"]
    except Exception as error:  # torch.load raises many kinds
        raise ValueError(f"{FILE} must be a checkpoint of this loop: got {str(file)!r} of {file.stat().st_size} bytes "
                         f"({error})") from error
    if differ := differences(known, facts, config, step):
        raise ValueError(f"a run goes on with what it began with, or starts in a new folder: in {str(folder)!r} "
                         + "; ".join(differ))
    model.load_state_dict(content["model"])
    optimiser.load_state_dict(content["optimiser"])
    torch.set_rng_state(content["random"])
    return step


def differences(known: Mapping[str, object], facts: Mapping[str, object], config: TrainConfig, step: int) -> list[str]:
    """What makes these two runs in the first `step` steps. The end may be moved: arguments in MOVABLE may differ, if all
    those steps had the same learning rate."""
    differ = [name for name in sorted(known.keys() | facts.keys()) if known.get(name) != facts.get(name)]
    if all(name in MOVABLE for name in differ):
        before = replace(config, **{name.removeprefix("train."): known[name] for name in differ})
        if step <= config.steps and all(before.lr_at(k) == config.lr_at(k) for k in range(step)):
            return []
    return [f"{name} was {known.get(name)}, is {facts.get(name)}" for name in differ]


class Log:
    """`log.csv`: one row a step. Opened at step k it keeps the first k rows: a run that went on reads like one that never stopped."""

    FIELDS = ("step", "tokens", "lr", "loss", "gradient_norm", "validation_bits_per_byte", "seconds")

    def __init__(self, folder: Path, step: int):
        self.file = folder / "log.csv"
        rows = read_log(self.file) if step else []
        rows = [row for row in rows if int(row["step"]) <= step]
        part = self.file.with_suffix(".part")
        with open(part, "w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self.FIELDS)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(part, self.file)

    def add(self, row: Mapping[str, object]) -> None:
        with open(self.file, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self.FIELDS).writerow(row)


def read_log(file: Path) -> list[dict[str, str]]:
    """The rows of a log, as text."""
    if not Path(file).exists():
        return []
    with open(file, newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))
