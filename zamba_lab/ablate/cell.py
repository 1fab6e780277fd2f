"""One cell: one architecture, one task, one seed, one set of training arguments; its address, and its run.

The address is a hash of all that decides the outcome, so a cell that was run is never run again, whichever study asks for it.
The versions of torch, numpy and Python are not in it. They round otherwise and compute the same, and with them in it each update
would throw a store away; so bits are promised for one set of versions, and a record says which torch and Python made it.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zamba_lab.config import ZambaConfig
from zamba_lab.lens import link_ratios
from zamba_lab.model import Zamba
from zamba_lab.ops.loss import token_nll
from zamba_lab.train import Labelled, TrainConfig, read_metrics, train
from zamba_lab.train.batches import IGNORE
from zamba_lab.train.state import MOVABLE

# Raised when a change of the code changes what a cell gives (tests/ablate/test_golden.py says so). Cells of another number
# have other addresses: they stay in a store and are never mixed in.
CODE = 1
LOUD = (0.3, 2.0)  # RMS(link out) / RMS(stream) outside of this is worth a word
PIECE = 128  # sequences looked at in one forward pass
SECOND = 1_000_000_000  # added to the step: another sample of held-out sequences
# what a training argument must be free of to stay out of the address; steps and schedule decide where a cell ends
SILENT = {name.removeprefix("train.") for name in MOVABLE} - {"steps", "schedule", "evaluate_every"}


@dataclass(frozen=True)
class Cell:
    """config: the architecture, initialisation included. train: its seed decides initial weights and data alike.

    also: other tasks on which the trained model is looked at. weights: whether the trained weights are kept.
    """

    config: ZambaConfig
    task: Any
    train: TrainConfig
    solved: float
    sample: int
    also: Mapping[str, Any] = field(default_factory=dict)
    weights: bool = False

    @cached_property
    def facts(self) -> dict[str, str]:
        """All that decides the outcome, as JSON texts."""
        training = {name: value for name, value in self.train.facts().items() if name not in SILENT}
        rules = {"solved": self.solved, "sample": self.sample, "also": {name: task.facts() for name, task in self.also.items()}}
        return {"config": _config_text(self.config), "task": _task_text(self.task), "train": _text(training), "rules": _text(rules)}

    @cached_property
    def address(self) -> str:
        whole = f"{CODE}\n" + "\n".join(self.facts.values())
        return hashlib.sha256(whole.encode()).hexdigest()[:32]

    @property
    def flops(self) -> float:
        """Floating-point operations of all its steps, if none is saved: forward and backward."""
        return 3 * self.config.flops_per_token(self.task.length) * self.train.batch * self.train.length * self.train.steps


def _text(values: Any) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


@lru_cache(maxsize=4096)
def _config_text(config: ZambaConfig) -> str:
    return _text(asdict(config))


@lru_cache(maxsize=256)
def _task_text(task: Any) -> str:
    return _text(task.facts())


def run_cell(
    cell: Cell, folder: Path, on_row: Callable[[Mapping[str, Any]], object] = lambda row: None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Run a cell, or go on with it where it was stopped: the outcome is the same, bit by bit.

    Args:
        folder: of this cell alone, for checkpoints and metrics while it runs.
        on_row: called with every step's row of metrics, and what `link_shares` gave as link_shares.

    Returns: its record (`store.COLUMNS`), and the trained weights ({} if it diverged). A loss that is no number is an outcome
    (status "diverged"); every other error is raised.
    """
    torch.manual_seed(cell.train.seed)
    model = Zamba(cell.config)
    heard = link_shares(model, cell)
    data = Labelled(cell.task.batch, cell.task.length, {"address": cell.address})
    measure = lambda model, step: measured(model, cell, step)  # noqa: E731
    began, error = time.perf_counter(), ""
    try:
        train(model, data, cell.train, folder, measure=measure, until=solved, on_row=[lambda row: on_row({**row, "link_shares": heard})])
    except FloatingPointError as found:
        error = str(found)
    rows = read_metrics(folder)
    weights = {} if error else {name: value.detach().clone() for name, value in model.state_dict().items()}
    others = {} if error else cell.also
    also = {name: measured_once(model.eval(), task.unseen(), cell, 0)["accuracy"] for name, task in others.items()}
    return record(cell, rows, error, weights, also, heard, time.perf_counter() - began), weights


def solved(row: Mapping[str, Any]) -> bool:
    """Whether a row of metrics is the last."""
    return bool(row.get("solved"))


@torch.no_grad()
def measured(model: nn.Module, cell: Cell, step: int) -> dict[str, Any]:
    """Accuracy and loss on held-out sequences that are new at each step; solved if a second sample says so, too."""
    found = measured_once(model, cell.task.unseen(), cell, step)
    again = found["accuracy"] >= cell.solved and measured_once(model, cell.task.unseen(), cell, SECOND + step)["accuracy"]
    return {**found, "solved": float(again >= cell.solved) if again else 0.0}


@torch.no_grad()
def measured_once(model: nn.Module, task: Any, cell: Cell, step: int) -> dict[str, float]:
    """accuracy, held_out_loss in nats, and the loss of each of the task's slices as loss.NAME."""
    ids, labels = task.batch(cell.train.seed, step, cell.sample)
    parts = [scored(model(some), wanted) for some, wanted in zip(ids.split(PIECE), labels.split(PIECE))]
    right, nats = (torch.cat(part) for part in zip(*parts))
    asked = labels != IGNORE
    slices = {
        f"loss.{name}": float(nats[where & asked].mean()) for name, where in task.slices(ids, labels).items() if (where & asked).any()
    }
    return {"accuracy": float(right[asked].mean()), "held_out_loss": float(nats[asked].mean()), **slices}


def scored(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each answer is right, and its loss in nats, (n, l) float64; 0 where nothing is asked."""
    return (logits.argmax(-1) == labels).double(), token_nll(logits.double(), labels)


def link_shares(model: nn.Module, cell: Cell) -> list[float]:
    """`lens.link_ratios` before training, on sequences of the cell's task."""
    return link_ratios(model.eval(), cell.task.batch(cell.train.seed, 0, 16)[0])


def loudness(shares: Sequence[float]) -> str:
    """What is worth a word about `link_shares`; "" if nothing is."""
    if shares and min(shares) < LOUD[0]:
        return "the block is hardly heard at first"
    return "the block drowns the stream at first" if shares and max(shares) > LOUD[1] else ""


def record(
    cell: Cell,
    rows: list[dict[str, Any]],
    error: str,
    weights: Mapping[str, Tensor],
    also: Mapping[str, float],
    heard: list[float],
    seconds: float,
) -> dict[str, Any]:
    """What is kept of a cell."""
    curve = [
        {
            "step": row["step"],
            "loss": row["loss"],
            "accuracy": row["accuracy"],
            "held_out_loss": row["held_out_loss"],
            "slices": _text({name: value for name, value in row.items() if name.startswith("loss.") and value is not None}),
        }
        for row in rows
        if row.get("accuracy") is not None
    ]
    last = curve[-1] if curve else {"accuracy": math.nan, "held_out_loss": math.nan, "slices": "{}"}
    done = rows[-1]["step"] if rows else 0
    at = next((row["step"] for row in rows if solved(row)), None)
    c = cell.config
    outcome = {
        "steps": done,
        "solved_at": at,
        "accuracy": last["accuracy"],
        "held_out_loss": last["held_out_loss"],
        "slices": last["slices"],
        "also": _text(also),
        "curve": curve,
        "link_shares": heard,
        "error": error,
        "status": "diverged" if error else "solved" if at else "unsolved",
        "weights_sha256": hash_of(weights),
    }
    work = [row["seconds"] - row["seconds_waiting"] for row in rows]
    return {
        "address": cell.address,
        "code": CODE,
        **cell.facts,
        "seed": cell.train.seed,
        **outcome,
        "outcome_sha256": hashlib.sha256(_text(outcome).encode()).hexdigest(),
        "n_params": c.n_params,
        "flops_per_token": c.flops_per_token(cell.task.length),
        "state_bytes": c.cache_bytes(cell.task.length),
        "seconds": seconds,
        "seconds_a_step": sorted(work)[len(work) // 2] if work else math.nan,
        "host": socket.gethostname(),
        "versions": _text(versions()),
        "finished": time.time(),
    }


def versions() -> dict[str, Any]:
    """What a record says of where it was made."""
    return {"python": platform.python_version(), "torch": torch.__version__, "threads": torch.get_num_threads()}


def hash_of(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of names and bytes; "" of none."""
    if not weights:
        return ""
    sha = hashlib.sha256()
    for name in sorted(weights):
        sha.update(name.encode() + weights[name].contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
