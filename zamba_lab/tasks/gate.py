"""The positive control: a transformer, a pure Mamba-2 and a Zamba hybrid, two layers each, must solve recall of four pairs.

    python -m zamba_lab.tasks.gate --seeds 0 1 2

A study on recall means nothing where a model cannot learn it at all for a reason that has nothing to do with the
architecture: most often its initialisation. So before the first step it is also said how loud each shared block is in what
its mixer reads (`heard`): far below 1 it is not heard, far above 1 nothing else is. What the settings took: NOTES.md.
"""
from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from zamba_lab.config import ZambaConfig
from zamba_lab.model import Zamba
from zamba_lab.tasks.catalogue import get
from zamba_lab.tasks.task import Task, accuracy
from zamba_lab.trace import Trace
from zamba_lab.train.config import TrainConfig
from zamba_lab.train.optimiser import adamw
from zamba_lab.train.schedules import WSD, Constant
from zamba_lab.train.step import train_step

SOLVED = 0.99                   # accuracy on CHECKED new sequences, and again on others
CHECKED = 512
HEARD = (0.3, 2.0)              # where RMS(link out) / RMS(stream) should start on a recall task
BATCH = 64                      # sequences in a step


@dataclass(frozen=True)
class Arm:
    """A model and how it is trained. `training`: steps at most, rate, schedule, decay and clipping; its batch is BATCH."""

    model: ZambaConfig
    training: TrainConfig


@dataclass(frozen=True)
class Outcome:
    """What became of one training. `solved_at`: the step at which SOLVED was passed twice in a row, None if never.

    `cpu_seconds` are the process's own, of training, its batches and the checks; another process does not slow them.
    """

    arm: str
    seed: int
    solved_at: int | None
    accuracy: float
    steps: int
    cpu_seconds: float
    heard: dict[int, float]
    curve: tuple[tuple[int, float], ...]


def arms(vocab_size: int) -> dict[str, Arm]:
    """The three models of the gate, by name, for a task of that vocabulary."""
    base = dict(vocab_size=vocab_size, d_model=64, n_layers=2, attn_heads=2, d_mlp=256, tie_embeddings=False, init="small",
                pad_token_id=None, bos_token_id=None, eos_token_id=None)
    pure = dict(n_shared_blocks=0, hybrid_layers=(), d_state=32, headdim=64)
    hybrid = dict(n_shared_blocks=1, hybrid_layers=(1,), lora_rank=4, d_state=16, headdim=64, link_gain=8.0)
    return {"transformer": Arm(ZambaConfig(**base, mixer="attention", n_shared_blocks=0, hybrid_layers=()), training(3e-3)),
            "mamba2": Arm(ZambaConfig(**base, **pure), training(1e-2)),
            "hybrid": Arm(ZambaConfig(**base, **hybrid), training(3e-3))}


def training(lr: float, steps: int = 1000, decay: float = 0.0) -> TrainConfig:
    """A warm-up of 100 steps, then a constant rate, or one that falls to 0 over the last `decay` of the steps."""
    schedule = WSD(warmup=100, decay=decay) if decay else Constant(warmup=100)
    return TrainConfig(steps=steps, batch=BATCH, lr=lr, schedule=schedule)


def solve(name: str, arm: Arm, task: Task, seed: int, every: int = 50) -> Outcome:
    """Train until the task is solved, or the steps are used up. The seed decides weights and data."""
    torch.manual_seed(seed)
    model, began = Zamba(arm.model), time.process_time()
    loud = heard(model, task.batch(seed, 0, BATCH).ids)
    optimiser, config, curve, solved_at, step = adamw(model, arm.training), arm.training, [], None, 0
    while solved_at is None and step < config.steps:
        train_step(model, optimiser, [task.batch(seed, step, BATCH)], config.lr_at(step), config.clip)
        step += 1
        if step % every == 0 or step == config.steps:
            curve.append((step, score(model, task, seed, 2 * step)))
            if curve[-1][1] >= SOLVED and score(model, task, seed, 2 * step + 1) >= SOLVED:
                solved_at = step
    return Outcome(name, seed, solved_at, curve[-1][1], step, time.process_time() - began, loud, tuple(curve))


@torch.no_grad()
def score(model: Zamba, task: Task, seed: int, check: int) -> float:
    """The accuracy on CHECKED held-out sequences; another `check`, other sequences."""
    ids, labels = task.unseen().batch(seed, check, CHECKED)
    return accuracy(model(ids), labels).total


@torch.no_grad()
def heard(model: Zamba, ids: Tensor) -> dict[int, float]:
    """RMS(link out) / RMS(stream) at each hybrid layer: how loud its shared block is in what the mixer reads.

    ids: (b, l), of the task the model is to learn. Empty where there is no shared block.
    """
    depths = model.config.hybrid_layers
    trace = Trace(keep=[f"layers.{i}.{point}" for i in depths for point in ("shared.link_out", "resid_in")])
    model(ids, trace=trace)
    rms = {name: trace[name].double().square().mean().sqrt().item() for name in trace}
    return {i: rms[f"layers.{i}.shared.link_out"] / rms[f"layers.{i}.resid_in"] for i in depths}


def describe(loud: dict[int, float]) -> str:
    """`heard` in words, with what is outside of HEARD marked."""
    words = [f"layer {i}: {ratio:.3f}" + ("" if HEARD[0] <= ratio <= HEARD[1] else " (!)") for i, ratio in loud.items()]
    return "RMS(link out) / RMS(stream) at the start: " + (", ".join(words) or "no shared block")


def positive_control(seeds: Sequence[int] = (0, 1, 2), names: Sequence[str] = ("transformer", "mamba2", "hybrid"), **changes) -> Iterator[Outcome]:
    """Train each arm at each seed on MQAR at `ci` size, one after the other. changes: fields of the task.

    The gate is open where every `solved_at` is a step.
    """
    task = get("mqar", "ci", **changes)
    table = arms(task.vocab_size)
    if unknown := [name for name in names if name not in table]:
        raise ValueError(f"no arm {', '.join(unknown)}: there are {', '.join(table)}")
    for name in names:
        for seed in seeds:
            yield solve(name, table[name], task, seed)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 if everything was solved."""
    parser = argparse.ArgumentParser(prog="python -m zamba_lab.tasks.gate", description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=["transformer", "mamba2", "hybrid"])
    parser.add_argument("--json", action="store_true", help="one line of JSON a training")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    closed = 0
    for found in positive_control(given.seeds, given.arms):
        closed += found.solved_at is None
        end = f"solved at step {found.solved_at}" if found.solved_at else f"NOT solved in {found.steps} steps"
        print(json.dumps(asdict(found)) if given.json else
              f"{found.arm:12} seed {found.seed}: {end}, {found.accuracy:.1%}, {found.cpu_seconds:.1f} CPU-s; {describe(found.heard)}",
              flush=True)
    return int(closed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
