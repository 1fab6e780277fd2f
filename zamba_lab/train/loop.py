"""The training loop: a batch, a step, a row of metrics; now and then an evaluation, a text and a checkpoint."""

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

from zamba_lab.corpora import Corpus, Packed
from zamba_lab.generation import generate
from zamba_lab.train.batches import MicroBatch, micro_batches, packed_bits_per_byte, prefetch
from zamba_lab.train.checks import bos_id_of, check_run, describe_nonfinite
from zamba_lab.train.config import TrainConfig, resolve_precision
from zamba_lab.train.distributed import SINGLE, SingleProcess
from zamba_lab.train.lock import deferred_signals, folder_lock
from zamba_lab.train.metrics import Metrics, Row, Writer, plain_values
from zamba_lab.train.mixture import Labelled, Mixture
from zamba_lab.train.state import CheckpointStore, run_facts
from zamba_lab.train.step import adamw, autocast_for, train_step

Measure = Callable[[nn.Module, int], Mapping[str, Any]]
BITS = "_bits_per_byte"


def train(
    model: nn.Module,
    data: np.ndarray | Corpus | Mixture | Labelled,
    config: TrainConfig,
    folder: str | Path,
    validation: Packed | Mapping[str, Packed] | None = None,
    *,
    branch_from: str | Path | None = None,
    branch_step: int | None = None,
    prompts: Sequence[str] = (),
    on_row: Sequence[Writer] = (),
    processes: SingleProcess = SINGLE,
    measure: Measure = lambda model, step: {},
    until: Callable[[Row], bool] = lambda row: False,
) -> nn.Module:
    """Train a `Zamba` in place, or continue a run that was stopped, to the same bits. Returns the model.

    data: (n,) ids, every document after a start token; a corpus; several with shares; or batches with labels. config: a run
    is resumed with the one it began with, but for its end and what changes no number (`state.MOVABLE`), if the steps done had
    the same rates. folder: gets the checkpoints, `metrics/` (`read_metrics`) and `run.log`; a checkpoint's weights replace the
    model's. validation: text, or texts by name, for an evaluation every `config.evaluate_every` steps and at the end.
    branch_from: folder of a run, the trunk, whose weights and moments after `branch_step` steps (None: the newest) this one
    begins with; its steps, rate and data are its own. prompts: texts that the model continues every `config.sample_every` steps.
    on_row: called with each row of metrics. measure: (model, steps done) -> more values for an evaluation's row. until: whether
    a row is the last.

    Raises ValueError, before the first step, if anything does not fit, or the folder holds another run or is in use;
    FloatingPointError, naming the windows, if a loss is not finite; OSError if a checkpoint has no room; KeyboardInterrupt on
    Ctrl-C or SIGTERM, after the step and a checkpoint. The last checkpoint stays in every case.
    """
    run = Run(model, Mixture.of(data), config, Path(folder), by_name(validation), prompts, on_row, processes, measure, until)
    run.start(branch_from, branch_step)
    return model.eval()


def by_name(validation: Packed | Mapping[str, Packed] | None) -> dict[str, Packed]:
    """Held-out texts by name; a single one is "validation"."""
    return {} if validation is None else dict(validation) if isinstance(validation, Mapping) else {"validation": validation}


@dataclass
class Run:
    """One call of `train`."""

    model: nn.Module
    data: Mixture | Labelled
    config: TrainConfig
    folder: Path
    held_out: dict[str, Packed]
    prompts: Sequence[str]
    on_row: Sequence[Writer]
    processes: SingleProcess
    measure: Measure
    until: Callable[[Row], bool]

    def __post_init__(self) -> None:
        check_run(self.model, self.data, self.config, self.held_out, self.prompts, self.processes)
        self.bos_id = bos_id_of(self.model)
        self.precision = resolve_precision(self.config.precision, next(self.model.parameters()).device)
        self.autocast = autocast_for(self.precision, next(self.model.parameters()).device)

    def start(self, branch_from: str | Path | None, branch_step: int | None) -> None:
        """Make what is left of the run's steps."""
        if branch_step is not None and branch_from is None:
            raise ValueError(f"branch_step={branch_step} needs branch_from, the folder of the run to branch from")
        branch = {} if branch_from is None else {"branch.from": Path(branch_from).name, "branch.step": branch_step}
        facts = run_facts(self.model, self.data, self.config, {"precision": self.precision, **branch})
        self.folder.mkdir(parents=True, exist_ok=True)
        self.module = self.processes.wrap(self.model, self.config)
        self.optimiser = adamw(self.model, self.config)
        lock = folder_lock(self.folder) if self.processes.rank == 0 else nullcontext()
        with lock, deferred_signals() as signals, self._training_mode():
            store = CheckpointStore(self.folder, self.model, self.optimiser, facts, self.config, self.processes)
            self._steps(store, Metrics(self.folder, store.begin(branch_from, branch_step), self.processes.rank == 0), signals)

    def _steps(self, store: CheckpointStore, metrics: Metrics, signals: list[int]) -> None:
        config, any_process = self.config, self.processes.any
        # asked by process 0 only: it has cut the rows back, and the others might read while it does
        last = any_process(metrics.writes and self.until(metrics.last() or {}))
        bar = tqdm(total=config.steps, initial=metrics.step, unit="step", disable=self.processes.rank > 0)
        headline, began = "", time.perf_counter()
        try:
            for step, batches in prefetch(self._micro_batches, range(metrics.step, metrics.step if last else config.steps)):
                row = self._step(step, batches, began)
                metrics.add(row)
                for write in self.on_row if self.processes.rank == 0 else ():
                    write(row)
                headline = _headline(row, headline)
                bar.set_description_str(headline, refresh=False)
                bar.update()
                stopping, last = any_process(bool(signals)), any_process(self.until(row))
                if row["step"] % config.checkpoint_every == 0 or row["step"] == config.steps or stopping or last:
                    store.save(row["step"], metrics.flush)
                if stopping:
                    store.note(f"stopped after step {row['step']}")
                    raise KeyboardInterrupt(f"stopped after step {row['step']} of {config.steps}: {self.folder} has it all")
                if last:
                    break
                began = time.perf_counter()
        except (FloatingPointError, ValueError) as error:
            store.note(str(error))
            raise
        finally:
            bar.close()
            metrics.flush_if_possible()

    def _micro_batches(self, step: int) -> list[MicroBatch]:
        return micro_batches(self.data, step, self.config, self.bos_id, self.processes.rank, self.processes.size)

    def _step(self, step: int, batches: list[MicroBatch], began: float) -> dict[str, Any]:
        """One step, and what is due after it: a row of metrics. Steps count from 0, rows from 1."""
        config, lr, done = self.config, self.config.lr_at(step), step + 1
        waited = time.perf_counter() - began
        try:
            loss, norm = train_step(self.module, self.optimiser, batches, lr, config.clip, self.autocast, self.processes)
        except ValueError as error:
            raise ValueError(f"step {done} of {config.steps} cannot be made: {error}") from error
        if not math.isfinite(loss) or not math.isfinite(norm):
            with self.autocast():
                raise FloatingPointError(describe_nonfinite(self.module, self.data, step, config, self.bos_id, loss, norm, self.processes))
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
            row |= self._evaluation(done, row.keys())
        if config.sample_every and (done % config.sample_every == 0 or done == config.steps):
            row["sample"] = "\n\n".join(self._sample(prompt, seed=done) for prompt in self.prompts)
        self.model.train()
        return row

    def _evaluation(self, done: int, taken: Sequence[str]) -> dict[str, Any]:
        """Bits per byte of the held-out texts, and what `measure` gives. Raises ValueError if that has a name of the row's own."""
        bos_id = self.bos_id if self.config.documents else None
        with self.autocast():
            bits = {
                f"{name}{BITS}": packed_bits_per_byte(self.model, packed, self.config.length, bos_id=bos_id)
                for name, packed in self.held_out.items()
            }
            measured = plain_values(self.measure(self.model, done))
        if clash := sorted(measured.keys() & {*taken, *bits, "sample"}):
            raise ValueError(f"a measure needs a name of its own: {', '.join(clash)} is in every row already")
        return bits | measured

    def _sample(self, prompt: str, seed: int, tokens: int = 60) -> str:
        """A prompt and how the model continues it; torch's own generator is left alone."""
        ids = torch.tensor([self.model.tokenizer.encode(prompt)], device=next(self.model.parameters()).device)
        fresh = generate(self.model, ids, tokens, temperature=0.8, top_p=0.95, seed=seed)
        return prompt + self.model.tokenizer.decode(fresh[0].tolist())

    @contextmanager
    def _training_mode(self) -> Iterator[None]:
        """Training mode, with activation checkpointing if the config says so; afterwards the model keeps all activations again."""
        self.model.train()
        if not self.config.checkpointing:
            yield
            return
        self.model.recompute = True
        try:
            yield
        finally:
            self.model.recompute = False


def _headline(row: dict[str, Any], before: str) -> str:
    """What the bar says: loss and rate, and the last evaluation."""
    bits = [f"{name.removesuffix(BITS)} {value:.3f} bits/byte" for name, value in row.items() if name.endswith(BITS)]
    evaluation = " | " + ", ".join(bits) if bits else before[before.find(" | ") :] if " | " in before else ""
    return f"loss {row['loss']:.3f} lr {row['lr']:.2g}{evaluation}"
