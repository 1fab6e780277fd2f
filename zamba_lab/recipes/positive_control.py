"""The positive control: a transformer, a pure Mamba-2 and a Zamba hybrid, two layers each, must solve recall of four pairs.

    python -m zamba_lab.recipes.positive_control --seeds 0 1 2
    python -m zamba_lab.recipes.positive_control --arms hybrid --set task.kv=8 task.vocab_size=256 task.length=64 training.steps=1200

A study on recall means nothing where a model cannot learn it at all for a reason that has nothing to do with the
architecture: most often its initialisation. So before the first step it is also printed how large each shared block's output is
where it enters its mixer (`lens.link_ratios`): far below 1 the block hardly matters, far above 1 nothing else does. What the
settings took: NOTES.md.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from zamba_lab.config import ZambaConfig
from zamba_lab.lens import link_ratios
from zamba_lab.model import Zamba
from zamba_lab.tasks.catalogue import get
from zamba_lab.tasks.task import Task, accuracy
from zamba_lab.train.config import TrainConfig
from zamba_lab.train.schedules import Constant
from zamba_lab.train.step import adamw, train_step

SOLVED = 0.99  # accuracy on CHECKED new sequences, and again on others
CHECKED = 512
RATIOS = (0.3, 2.0)  # where RMS(link out) / RMS(stream) should start on a recall task
BATCH = 64  # sequences in a step
NAMES = ("transformer", "mamba2", "hybrid")


@dataclass(frozen=True)
class Arm:
    """A model and how it is trained. `training`: steps at most, batch, rate, schedule, decay and clipping."""

    model: ZambaConfig
    training: TrainConfig

    def changed(self, model: dict[str, Any], training: dict[str, Any]) -> Arm:
        """The arm with other fields in its model and its training."""
        return Arm(replace(self.model, **model), replace(self.training, **training))


@dataclass(frozen=True)
class Outcome:
    """The result of one training. `solved_at`: the step at which SOLVED was passed twice in a row, None if never.

    `cpu_seconds` are the process's own, of training, its batches and the checks; another process does not slow them.
    """

    arm: str
    seed: int
    solved_at: int | None
    accuracy: float
    steps: int
    cpu_seconds: float
    link_ratios: tuple[float, ...]
    curve: tuple[tuple[int, float], ...]


def arms(vocab_size: int) -> dict[str, Arm]:
    """The three models by name, for a task of that vocabulary."""
    tokens = dict(vocab_size=vocab_size, tie_embeddings=False, pad_token_id=None, bos_token_id=None, eos_token_id=None)
    base = dict(**tokens, d_model=64, n_layers=2, attn_heads=2, d_mlp=256, init="small")
    pure = dict(**base, n_shared_blocks=0, hybrid_layers=())
    hybrid = dict(**base, n_shared_blocks=1, hybrid_layers=(1,), lora_rank=4, d_state=16, headdim=64, link_gain=8.0)
    return {
        "transformer": Arm(ZambaConfig(**pure, mixer="attention"), training(3e-3)),
        "mamba2": Arm(ZambaConfig(**pure, d_state=32, headdim=64), training(1e-2)),
        "hybrid": Arm(ZambaConfig(**hybrid), training(3e-3)),
    }


def training(lr: float) -> TrainConfig:
    """At most 1000 steps: a warm-up of 100, then a constant rate, for decay has to wait until the task is all but solved."""
    return TrainConfig(steps=1000, batch=BATCH, lr=lr, schedule=Constant(warmup=100))


def solve(name: str, arm: Arm, task: Task, seed: int, every: int = 50, see: Callable[[str], object] = lambda line: None) -> Outcome:
    """Train until the task is solved, or the steps are used up. The seed decides weights and data.

    every: steps between checks, each of which is a line for `see`; the first line, before any step, has the link ratios.
    """
    torch.manual_seed(seed)
    model, began = Zamba(arm.model), time.process_time()
    ratios = tuple(link_ratios(model, task.batch(seed, 0, BATCH).ids))
    see(f"{name} seed {seed} {describe(ratios)}")
    optimiser, config, curve, solved_at, step = adamw(model, arm.training), arm.training, [], None, 0
    while solved_at is None and step < config.steps:
        loss, _ = train_step(model, optimiser, [task.batch(seed, step, config.batch)], config.lr_at(step), config.clip)
        step += 1
        if step % every == 0 or step == config.steps:
            curve.append((step, score(model, task, seed, 2 * step)))
            see(f"{name} seed {seed} step {step}: loss {loss:.3f}, {curve[-1][1]:.1%} of new questions right")
            if curve[-1][1] >= SOLVED and score(model, task, seed, 2 * step + 1) >= SOLVED:
                solved_at = step
    return Outcome(name, seed, solved_at, curve[-1][1], step, time.process_time() - began, ratios, tuple(curve))


@torch.no_grad()
def score(model: Zamba, task: Task, seed: int, check: int) -> float:
    """The accuracy on CHECKED held-out sequences; another `check`, other sequences."""
    ids, labels = task.unseen().batch(seed, check, CHECKED)
    return accuracy(model(ids), labels).total


def describe(ratios: Sequence[float]) -> str:
    """The link ratios in words, with what is outside of RATIOS marked."""
    words = [f"invocation {k}: {ratio:.3f}" + ("" if RATIOS[0] <= ratio <= RATIOS[1] else " (!)") for k, ratio in enumerate(ratios)]
    return "RMS(link out) / RMS(stream) at the start: " + (", ".join(words) or "no shared block")


def positive_control(
    seeds: Sequence[int] = (0, 1, 2),
    names: Sequence[str] = NAMES,
    task: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    see: Callable[[str], object] = lambda line: None,
) -> Iterator[Outcome]:
    """Train each arm at each seed on MQAR at `ci` size, one after the other; the control passes where every one is solved.

    task, model, training: fields to change, in every arm; with any of them this is an experiment, not the control.
    """
    recall = get("mqar", "ci", **task or {})
    table = arms(recall.vocab_size)
    if unknown := [name for name in names if name not in table]:
        raise ValueError(f"no arm {', '.join(unknown)}: there are {', '.join(table)}")
    for name in names:
        for seed in seeds:
            yield solve(name, table[name].changed(model or {}, training or {}), recall, seed, see=see)


def settings(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """From texts such as "task.kv=8" and "training.schedule=wsd(warmup=100, decay=0.4)": the fields to change, by part."""
    changes: dict[str, dict[str, Any]] = {}
    for text in texts:
        where, _, value = text.partition("=")
        part, _, name = where.partition(".")
        if part not in ("task", "model", "training") or not name or not value:
            raise ValueError(f"a change is written like task.kv=8, model.link_gain=4 or training.lr=0.003: got {text!r}")
        try:
            changes.setdefault(part, {})[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):
            changes.setdefault(part, {})[name] = value
    return changes


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 if everything was solved."""
    parser = argparse.ArgumentParser(prog="python -m zamba_lab.recipes.positive_control", description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=NAMES)
    parser.add_argument("--set", nargs="+", default=[], metavar="PART.FIELD=VALUE", help="fields of task, model or training")
    parser.add_argument("--json", action="store_true", help="one line of JSON a training")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    unsolved = 0
    for outcome in positive_control(options.seeds, options.arms, **settings(options.set), see=lambda line: print(line, file=sys.stderr)):
        unsolved += outcome.solved_at is None
        end = f"solved at step {outcome.solved_at}" if outcome.solved_at else f"NOT solved in {outcome.steps} steps"
        cost = f"{outcome.accuracy:.1%}, {outcome.cpu_seconds:.1f} CPU-s; {describe(outcome.link_ratios)}"
        print(json.dumps(asdict(outcome)) if options.json else f"{outcome.arm:12} seed {outcome.seed}: {end}, {cost}", flush=True)
    return int(unsolved > 0)


if __name__ == "__main__":
    raise SystemExit(main())
