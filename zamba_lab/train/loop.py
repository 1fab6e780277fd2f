"""The training loop, whole: a batch, a step, a row of metrics; now and then an evaluation, a text and a checkpoint."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from zamba_lab.corpora import Packed
from zamba_lab.generation import generate
from zamba_lab.train.batches import Piece, ahead, pieces_at
from zamba_lab.train.checks import check_run, what_went_wrong
from zamba_lab.train.config import TrainConfig
from zamba_lab.train.heldout import packed_bits_per_byte
from zamba_lab.train.holding import alone_in, held_interrupts
from zamba_lab.train.metrics import Metrics, Row, Writer
from zamba_lab.train.labelled import Labelled
from zamba_lab.train.mixture import Mixture
from zamba_lab.train.optimiser import adamw
from zamba_lab.train.state import Store, run_facts
from zamba_lab.train.step import autocasting, resolved, train_step
from zamba_lab.train.team import ALONE, Alone


Measure = Callable[[nn.Module, int], Mapping[str, Any]]


def nothing(model: nn.Module, step: int) -> dict[str, Any]:
    """What is measured besides bits per byte, unless it is said."""
    return {}


def never(row: Row) -> bool:
    """A run goes to its last step."""
    return False


def train(
    model: nn.Module,
    data: np.ndarray | Mixture | Labelled,
    config: TrainConfig,
    folder: str | Path,
    validation: Packed | Mapping[str, Packed] | None = None,
    *,
    branch_from: str | Path | None = None,
    branch_step: int | None = None,
    prompts: Sequence[str] = (),
    on_row: Sequence[Writer] = (),
    team: Alone = ALONE,
    measure: Measure = nothing,
    until: Callable[[Row], bool] = never,
) -> nn.Module:
    """Train a model in place, or go on with a run that was stopped; the weights come out the same, bit by bit.

    Args:
        model: a `Zamba`, whose forward gives the loss of targets. A run that goes on, or branches, takes a checkpoint's weights.
        data: (n,) ids, every document after a start token; or several such arrays with shares; or batches with labels.
        config: the arguments; a run goes on only with those it began with, but for its end and what changes no number
            (`state.MOVABLE`), as long as the steps done had the same learning rate.
        folder: gets the checkpoints, `metrics/` (`read_metrics`) and `run.log`.
        validation: text, or named texts, for an evaluation every `config.evaluate_every` steps and at the end.
        branch_from: folder of a run, the trunk, whose weights and moments this one begins with; branch_step: those after so
            many steps; None: the newest. Steps, rate and data of the branch are its own.
        prompts: what the model continues every `config.sample_every` steps; it needs its tokenizer.
        on_row: called with each row of metrics: `writers.py`, or a figure's update.
        team: the processes that train (`several.py`).
        measure: (model, steps done) -> more numbers for an evaluation's row. until: whether a row is the last, by itself.

    Returns: the model. Raises:
        ValueError: before the first step, if anything does not fit, or the folder holds another run or is in use.
        FloatingPointError: the loss is no number; it names the windows, and the last checkpoint is from before.
        OSError: no room for a checkpoint, and how much it takes; the last one stays.
        KeyboardInterrupt: Ctrl-C, or a polite kill; the step is finished and a checkpoint written first.
    """
    data, folder, held_out = Mixture.of(data), Path(folder), named(validation)
    check_run(model, data, config, held_out, prompts, team)
    device = next(model.parameters()).device
    precision = resolved(config.precision, device)
    trunk = {} if branch_from is None else {"branch.from": Path(branch_from).name, "branch.step": branch_step}
    facts = run_facts(model, data, config, {"precision": precision, **trunk})
    folder.mkdir(parents=True, exist_ok=True)
    module = team.wrap(model, config)
    how = autocasting(precision, device)
    run = Run(model, module, adamw(model, config), data, config, held_out, prompts, how, team, measure)
    with alone_in(folder) if team.rank == 0 else nullcontext(), held_interrupts() as interrupts, run.training():
        store = Store(folder, model, run.optimiser, facts, config, team)
        walk(run, store, Metrics(folder, store.begin(branch_from, branch_step), team.rank == 0), interrupts, on_row, until)
    return model.eval()


def named(validation: Packed | Mapping[str, Packed] | None) -> dict[str, Packed]:
    """Held-out texts by name; a single one is "validation"."""
    single = {} if validation is None else {"validation": validation}
    return single if isinstance(validation, Packed | None) else dict(validation)


def walk(run: Run, store: Store, metrics: Metrics, interrupts: list[int], on_row: Sequence[Writer], until: Callable[[Row], bool]) -> None:
    """All steps that are left."""
    config, team = run.config, run.team
    # process 0 alone: it has cut the rows back, the others might read while it does
    over, said = team.any(metrics.writes and until(metrics.last() or {})), ""
    steps = range(metrics.step, metrics.step if over else config.steps)
    bar = tqdm(total=config.steps, initial=metrics.step, unit="step", disable=team.rank > 0)
    try:
        began = time.perf_counter()
        for step, pieces in ahead(run.pieces, steps):
            row = run.row(step, pieces, began)
            metrics.add(row)
            for see in on_row if team.rank == 0 else ():
                see(row)
            said = _headline(row, said)
            bar.set_description_str(said, refresh=False)
            bar.update()
            stopping, over = team.any(bool(interrupts)), team.any(until(row))
            if row["step"] % config.checkpoint_every == 0 or row["step"] == config.steps or stopping or over:
                store.save(row["step"], metrics.flush)
            if stopping:
                store.note(f"stopped after step {row['step']}")
                raise KeyboardInterrupt(f"stopped after step {row['step']} of {config.steps}: {store.folder} has it all")
            if over:
                break
            began = time.perf_counter()
    except FloatingPointError as error:
        store.note(str(error))
        raise
    finally:
        bar.close()
        metrics.rescue()


@dataclass
class Run:
    """What a step needs."""

    model: nn.Module
    module: nn.Module  # what is called in a step: the model, or what its team made of it
    optimiser: torch.optim.Optimizer
    data: Mixture | Labelled
    config: TrainConfig
    held_out: dict[str, Packed]
    prompts: Sequence[str]
    autocast: Any
    team: Alone
    measure: Measure

    def pieces(self, step: int) -> list[Piece]:
        return pieces_at(self.data, step, self.config, self._bos_id(), self.team.rank, self.team.size)

    def row(self, step: int, pieces: list[Piece], began: float) -> dict[str, Any]:
        """One step, and what is due after it: a row of metrics. Steps count from 0, rows from 1."""
        config, lr, done = self.config, self.config.lr_at(step), step + 1
        waited = time.perf_counter() - began
        loss, norm = train_step(self.module, self.optimiser, pieces, lr, config.clip, self.autocast, self.team)
        if not math.isfinite(loss) or not math.isfinite(norm):
            where = self.module, self.data, step, config, self._bos_id()
            with self.autocast():
                raise FloatingPointError(what_went_wrong(*where, loss, norm, self.team))
        row = {
            "step": done,
            "tokens": done * config.batch * config.length,
            "lr": lr,
            "loss": loss,
            "gradient_norm": norm,
            "seconds": time.perf_counter() - began,
            "seconds_waiting": waited,
        }
        self.model.eval()
        if done % config.evaluate_every == 0 or done == config.steps:
            bos_id = self._bos_id() if config.documents else None
            with self.autocast():
                row |= {
                    f"{name}_bits_per_byte": packed_bits_per_byte(self.model, packed, config.length, bos_id=bos_id)
                    for name, packed in self.held_out.items()
                }
                row |= self.measure(self.model, done)
        if config.sample_every and (done % config.sample_every == 0 or done == config.steps):
            row["sample"] = "\n\n".join(self.sample(prompt, seed=done) for prompt in self.prompts)
        self.model.train()
        return row

    def sample(self, prompt: str, seed: int, tokens: int = 60) -> str:
        """A prompt and how the model goes on; torch's own generator is left alone."""
        ids = torch.tensor([self.model.tokenizer.encode(prompt)], device=next(self.model.parameters()).device)
        fresh = generate(self.model, ids, tokens, temperature=0.8, top_p=0.95, seed=seed)
        return prompt + self.model.tokenizer.decode(fresh[0].tolist())

    @contextmanager
    def training(self) -> Iterator[None]:
        """The model as it is while it trains; afterwards it keeps all activations again."""
        self.model.train()
        if not self.config.checkpointing:
            yield
            return
        self.model.checkpointing(True)
        try:
            yield
        finally:
            self.model.checkpointing(False)

    def _bos_id(self) -> int | None:
        return getattr(getattr(self.model, "config", None), "bos_token_id", None)


def _headline(row: dict[str, Any], before: str) -> str:
    """What the bar says: loss and rate, the last evaluations behind them."""
    found = [
        f"{name.removesuffix('_bits_per_byte')} {value:.3f} bits/byte" for name, value in row.items() if name.endswith("_bits_per_byte")
    ]
    last = " | " + ", ".join(found) if found else before[before.find(" | ") :] if " | " in before else ""
    return f"loss {row['loss']:.3f} lr {row['lr']:.2g}{last}"
