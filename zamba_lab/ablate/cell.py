"""One cell: one architecture, one task, one seed, one set of training arguments; its address, and its run.

The address is a hash of all that decides the outcome, so a cell that was run is never run again, whichever study asks for it.
The versions of torch, numpy and Python are not in it. They round otherwise and compute the same, and with them in it each update
would throw a store away. A record says which torch and Python made it; on another machine the same cell differs by rounding, and
training makes that grow.
"""

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
from zamba_lab.lens import Intervened, intervene, link_ratios, mean
from zamba_lab.model import Zamba
from zamba_lab.ops.loss import token_nll
from zamba_lab.train import Labelled, TrainConfig, read_metrics, train
from zamba_lab.train.batches import IGNORE
from zamba_lab.train.state import MOVABLE

# Raised when a change of the code changes what a cell gives (tests/ablate/test_golden.py says so). Cells of another number
# have other addresses: they stay in a store and are never mixed in.
CODE = 1
LINK_RANGE = (0.3, 2.0)  # RMS(link out) / RMS(stream) outside of this is worth a warning
FORWARD_BATCH = 128  # sequences in one forward pass of an evaluation
SECOND_SAMPLE = 1_000_000_000  # added to the step: another sample of held-out sequences
# what a training argument must be free of to stay out of the address; steps and schedule decide where a cell ends
SILENT = {name.removeprefix("train.") for name in MOVABLE} - {"steps", "schedule", "evaluate_every"}


@dataclass(frozen=True)
class Cell:
    """config: the architecture, initialisation included. train: its seed decides initial weights and data alike.

    solved: the accuracy that ends the cell; sample: held-out sequences in an evaluation. also: other tasks on which the trained
    model is measured. weights: whether the trained weights are kept. until: "solved" or "steps", what ends the cell. costs: parts
    (zamba_lab.lens.parts) of which it is measured what replacing them by their mean adds to the trained model's loss.
    """

    config: ZambaConfig
    task: Any
    train: TrainConfig
    solved: float
    sample: int
    also: Mapping[str, Any] = field(default_factory=dict)
    weights: bool = False
    until: str = "solved"
    costs: tuple[str, ...] = ()

    @cached_property
    def facts(self) -> dict[str, str]:
        """All that decides the outcome, as JSON texts."""
        training = {name: value for name, value in self.train.facts().items() if name not in SILENT}
        rules = {"solved": self.solved, "sample": self.sample, "also": {name: task.facts() for name, task in self.also.items()}}
        # what is as it was before it could be otherwise is left out: stored cells keep their addresses
        rules |= ({"until": self.until} if self.until != "solved" else {}) | ({"costs": self.costs} if self.costs else {})
        return {"config": _config_text(self.config), "task": _task_text(self.task), "train": _text(training), "rules": _text(rules)}

    @cached_property
    def address(self) -> str:
        return _sha256(f"{CODE}\n" + "\n".join(self.facts.values()))[:32]

    @property
    def flops(self) -> float:
        """Floating-point operations of all its steps, if none is saved: forward and backward."""
        return 3 * self.config.flops_per_token(self.task.length) * self.train.batch * self.train.length * self.train.steps


def _text(values: Any) -> str:
    return json.dumps(values, sort_keys=True, separators=(",", ":"))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@lru_cache(maxsize=4096)
def _config_text(config: ZambaConfig) -> str:
    return _text(asdict(config))


@lru_cache(maxsize=256)
def _task_text(task: Any) -> str:
    return _text(task.facts())


def run_cell(
    cell: Cell, folder: Path, on_row: Callable[[Mapping[str, Any]], object] = lambda row: None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Run a cell, or go on with it where it was stopped; on one machine, with one thread, the outcome is the same.

    Args:
        folder: of this cell alone, for checkpoints and metrics while it runs.
        on_row: called with every step's row of metrics, and `lens.link_ratios` before training as link_shares.

    Returns: its record (`store.COLUMNS`), and the trained weights ({} if it diverged). A loss that is no number is an outcome
    (status "diverged"); every other error is raised.
    """
    torch.manual_seed(cell.train.seed)
    model = Zamba(cell.config)
    shares = link_ratios(model.eval(), cell.task.batch(cell.train.seed, 0, 16)[0])
    data = Labelled(cell.task.batch, cell.task.length, {"address": cell.address})
    began, error = time.perf_counter(), ""
    try:
        train(
            model,
            data,
            cell.train,
            folder,
            measure=lambda model, step: evaluate(model, cell, step),
            until=is_solved if cell.until == "solved" else lambda row: False,
            on_row=[lambda row: on_row({**row, "link_shares": shares})],
        )
    except FloatingPointError as divergence:
        error = str(divergence)
    rows = read_metrics(folder)
    weights = {} if error else {name: value.detach().clone() for name, value in model.state_dict().items()}
    also = {} if error else {name: score(model.eval(), task.unseen(), cell, 0)["accuracy"] for name, task in cell.also.items()}
    costs = costs_of(model.eval(), cell) if cell.costs and not error else {}
    return record(cell, rows, error, weights, also, shares, time.perf_counter() - began, costs), weights


def costs_of(model: Zamba, cell: Cell) -> dict[str, float]:
    """cost.PART of each of the cell's parts: nats that the held-out loss gains when every such part gives its mean over the held-out
    sequences, whatever the text."""
    task = cell.task.unseen()
    ids = task.batch(cell.train.seed, SECOND_SAMPLE, cell.sample)[0]
    losses = [
        score(each, task, cell, 0)["held_out_loss"] for each in (model, *(intervene(model, mean(part, None, ids)) for part in cell.costs))
    ]
    return {f"cost.{part}": loss - losses[0] for part, loss in zip(cell.costs, losses[1:])}


def is_solved(row: Mapping[str, Any]) -> bool:
    """Whether a row of metrics is one of a solved task."""
    return bool(row.get("solved"))


def evaluate(model: nn.Module, cell: Cell, step: int) -> dict[str, Any]:
    """Accuracy and loss on held-out sequences that are new at each step; solved: 1.0 if a second sample reaches the accuracy, too."""
    scores = score(model, cell.task.unseen(), cell, step)
    solved = scores["accuracy"] >= cell.solved and score(model, cell.task.unseen(), cell, SECOND_SAMPLE + step)["accuracy"] >= cell.solved
    return {**scores, "solved": float(solved)}


@torch.no_grad()
def score(model: nn.Module | Intervened, task: Any, cell: Cell, step: int) -> dict[str, float]:
    """accuracy, held_out_loss in nats, and the loss of each of the task's slices as loss.NAME."""
    ids, labels = task.batch(cell.train.seed, step, cell.sample)
    parts = [_answers(model(part), wanted) for part, wanted in zip(ids.split(FORWARD_BATCH), labels.split(FORWARD_BATCH))]
    right, nats = (torch.cat(part) for part in zip(*parts))
    asked = labels != IGNORE
    slices = {
        f"loss.{name}": float(nats[where & asked].mean()) for name, where in task.slices(ids, labels).items() if (where & asked).any()
    }
    return {"accuracy": float(right[asked].mean()), "held_out_loss": float(nats[asked].mean()), **slices}


def _answers(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Whether each answer is right, and its loss in nats, (n, l) float64; 0 where nothing is asked."""
    return (logits.argmax(-1) == labels).double(), token_nll(logits.double(), labels)


def link_warning(shares: Sequence[float]) -> str:
    """What is worth a warning about `lens.link_ratios` before training; "" if nothing is.

    Far below 1 a block adds next to nothing, and its gradient is small: the arm is then trained as if it were its SSM.
    """
    if shares and min(shares) < LINK_RANGE[0]:
        return "attention starts too quiet"
    return "attention starts louder than the stream" if shares and max(shares) > LINK_RANGE[1] else ""


def record(
    cell: Cell,
    rows: list[dict[str, Any]],
    error: str,
    weights: Mapping[str, Tensor],
    also: Mapping[str, float],
    shares: list[float],
    seconds: float,
    costs: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """What is kept of a cell (`store.COLUMNS`)."""
    outcome = {**_outcome(rows, error), "also": _text(also), "link_shares": shares, "weights_sha256": hash_of(weights)}
    outcome |= {"measures": _text(costs)} if costs else {}
    work = sorted(row["seconds"] - row["seconds_waiting"] for row in rows)
    return {
        "address": cell.address,
        "code": CODE,
        **cell.facts,
        "seed": cell.train.seed,
        "measures": "{}",
        **outcome,
        "outcome_sha256": _sha256(_text(outcome)),
        "n_params": cell.config.n_params,
        "flops_per_token": cell.config.flops_per_token(cell.task.length),
        "state_bytes": cell.config.cache_bytes(cell.task.length),
        "seconds": seconds,
        "seconds_a_step": work[len(work) // 2] if work else math.nan,
        "host": socket.gethostname(),
        "versions": _text({"python": platform.python_version(), "torch": torch.__version__, "threads": torch.get_num_threads()}),
        "finished": time.time(),
    }


def _outcome(rows: list[dict[str, Any]], error: str) -> dict[str, Any]:
    """How training went: the evaluated rows as a curve, the last of them, and the status."""
    curve = [
        {name: row[name] for name in ("step", "loss", "accuracy", "held_out_loss")}
        | {"slices": _text({name: value for name, value in row.items() if name.startswith("loss.") and value is not None})}
        for row in rows
        if row.get("accuracy") is not None
    ]
    last = curve[-1] if curve else {"accuracy": math.nan, "held_out_loss": math.nan, "slices": "{}"}
    solved_at = next((row["step"] for row in rows if is_solved(row)), None)
    return {
        "steps": rows[-1]["step"] if rows else 0,
        "solved_at": solved_at,
        **{name: last[name] for name in ("accuracy", "held_out_loss", "slices")},
        "curve": curve,
        "error": error,
        "status": "diverged" if error else "solved" if solved_at else "unsolved",
    }


def hash_of(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of names and bytes; "" of none."""
    if not weights:
        return ""
    sha = hashlib.sha256()
    for name in sorted(weights):
        sha.update(name.encode() + weights[name].contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()
