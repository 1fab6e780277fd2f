"""Ablations: planning 10,000 cells, asking 100,000 finished ones, two workers against one, and a cell's training step.

The cells asked are made up: records as a run leaves them, a learning curve of 40 points each, in the files that a store has
after so many. Workers are the runner's own, one thread each, on cells of an ablation's size (6 layers, d_model 64, 64 x 32
tokens); the time from first to last step counts, their start does not. The step against transformers is in `train_step`.
"""

import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from harness import OURS, interleaved, ratio_row, repeats, time_row
from train_step import ABLATION

from zamba_lab import ablate
from zamba_lab.ablate import Cell, Quiet, Store, Study, plan
from zamba_lab.ablate.cell import record
from zamba_lab.ablate.store import _parquet
from zamba_lab.train import TrainConfig
from zamba_lab.writing import write

ONE, TWO = "one worker", "two workers"
PLANNED, ASKED, POINTS, FILES_OF = 10_000, 100_000, 40, 256


@dataclass(frozen=True)
class Random:
    """Labels that cannot be learnt: every cell makes all its steps."""

    vocab_size: int = 64
    length: int = 32
    held_out: bool = False
    chance: float = 1 / 64
    plateau: float | None = None

    def batch(self, seed: int, step: int, n: int):
        generator = torch.Generator().manual_seed(2 * (seed * 100_003 + step) + self.held_out)
        return tuple(torch.randint(self.vocab_size, (n, self.length), generator=generator) for _ in range(2))

    def unseen(self):
        return replace(self, held_out=True)

    def slices(self, ids, labels):
        return {}

    def facts(self):
        return asdict(self)


def study(steps: int, batch: int, seeds: int, axes: dict, config=ABLATION) -> Study:
    training = TrainConfig(steps=steps, batch=batch, length=2, schedule="constant", evaluate_every=steps, checkpoint_every=steps)
    return Study("measured", config, Random(), training, seeds=tuple(range(seeds)), axes=axes, sample=64)


def planning(count: int):
    """A function that makes a study of about so many cells and plans them, everything anew."""
    arms = {"d_mlp": list(range(64, 64 + 49)), "d_state": [8, 32]}

    def once():
        made = study(100, 64, -(-count // 52), arms)
        cells = plan(made).cells
        assert len({one.cell.address for one in cells}) == len(cells) >= count
        return cells

    return once


def asked(folder: Path, count: int) -> Store:
    """A store with so many finished cells, in files of FILES_OF."""
    store = Store(folder)
    store.cells.mkdir()
    cell = Cell(ABLATION, Random(), TrainConfig(length=32), 0.99, 64)
    rows = [
        {"step": 50 * k, "loss": 1 / k, "accuracy": k / 40, "held_out_loss": 1 / k, "seconds": 0.04, "seconds_waiting": 0.0}
        for k in range(1, POINTS + 1)
    ]
    one = record(cell, rows, "", {}, {}, [1.0, 1.0], 80.0)
    for first in range(0, count, FILES_OF):
        numbers = range(first, min(count, first + FILES_OF))
        cells = [{**one, "address": f"{k:032x}", "seed": k % 6, "accuracy": k / count} for k in numbers]
        write(store.cells / f"many-{first:08x}.parquet", _parquet(cells))
    return store


def questions(store: Store):
    """What a report of a large study asks: means by seed and architecture, and the last points of all curves."""

    def ask():
        by = store.query(
            "select seed, config::json ->> 'd_state' as n, avg(accuracy) as mean, count(*) as cells from cells group by all order by 1"
        )
        last = store.query("select avg(curve[-1].accuracy) as last, count(*) as cells from cells where status = 'unsolved'")
        assert sum(row["cells"] for row in by) == last[0]["cells"]

    return ask


def sweeps(workers: int, steps: int, batch: int, config, folder: Path) -> float:
    """Seconds of a sweep of four cells, from its first row to its last."""

    class Watch(Quiet):
        times: list[float] = []

        def row(self, planned, row):
            self.times.append(time.perf_counter() - row["seconds"])

        def done(self, planned, status):
            self.times.append(time.perf_counter())

    watch = Watch()
    watch.times = []
    ablate.run(study(steps, batch, 4, {}, config), folder, workers, watch)
    return max(watch.times) - min(watch.times)


def run(quick: bool = False) -> list[dict]:
    rows, (planned, many) = [], (200, 600) if quick else (PLANNED, ASKED)
    times = interleaved({OURS: planning(planned)}, repeats(5, quick))
    rows.append(time_row(f"planning {planned:,} cells", OURS, times[OURS], target="< 5 s"))
    with tempfile.TemporaryDirectory() as folder:
        store = asked(Path(folder) / "store", many)
        times = interleaved({OURS: questions(store)}, repeats(5, quick))
        rows.append(time_row(f"two questions to {many:,} finished cells", OURS, times[OURS], target="< 1 s"))
    small = replace(ABLATION, n_layers=2, hybrid_layers=(1,), n_shared_blocks=1)
    config, steps, batch = (small, 2, 4) if quick else (ABLATION, 60, 64)
    took: dict[str, list[float]] = {ONE: [], TWO: []}
    for _ in range(repeats(3, quick)):
        for name, count in ((ONE, 1), (TWO, 2)):
            with tempfile.TemporaryDirectory() as folder:
                took[name].append(sweeps(count, steps, batch, config, Path(folder) / "store"))
    rows.append(ratio_row(f"four cells of {steps} steps", took, TWO, ONE, ">= 1.8x"))
    return rows
