"""The training loop, whole: a batch, a step, a row in the log; now and then an evaluation and a checkpoint."""
from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from zamba_lab.corpora import Packed
from zamba_lab.train.batches import batch_at
from zamba_lab.train.config import TrainConfig
from zamba_lab.train.heldout import packed_bits_per_byte
from zamba_lab.train.optimiser import adamw
from zamba_lab.train.state import Log, load_state, run_facts, save_state


def train(model: nn.Module, tokens: np.ndarray, config: TrainConfig, folder: str | Path,
          validation: Packed | None = None) -> nn.Module:
    """Train a model in place, or go on with a run that was stopped; the weights come out the same, bit by bit.

    Args:
        model: (b, l) ids -> (b, l, v) logits.
        tokens: (n,) ids, documents joined; a memory-mapped array will do.
        config: the arguments; a folder with a checkpoint is continued only with the ones it was begun with, but for the
            number of steps and the decay, as long as the steps done had the same learning rate.
        folder: gets `checkpoint.pt` and `log.csv`.
        validation: text for an evaluation every `config.evaluate_every` steps and at the end.

    Returns: the model. Raises:
        ValueError: the folder holds another run, another process is training in it, or there are too few tokens.
        FloatingPointError: the loss is no longer a number; the last checkpoint is from before.
        KeyboardInterrupt: Ctrl-C, or a polite kill; a checkpoint of the step just done is written first.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    optimiser = adamw(model, config)
    facts = run_facts(model, tokens, config)
    with alone_in(folder), held_interrupts() as interrupts:
        start = load_state(folder, model, optimiser, facts, config)
        log = Log(folder, start)
        model.train()
        for step in (bar := tqdm(range(start, config.steps), total=config.steps, initial=start, unit="step")):
            row = one_row(model, optimiser, tokens, step, config, validation)
            log.add(row)
            bar.set_description_str(_headline(row, bar.desc), refresh=False)
            if row["step"] % config.checkpoint_every == 0 or row["step"] == config.steps or interrupts:
                save_state(folder, row["step"], model, optimiser, facts)
            if interrupts:
                raise KeyboardInterrupt(f"stopped after step {row['step']} of {config.steps}: {folder} has the checkpoint")
    return model.eval()


def one_row(model: nn.Module, optimiser: torch.optim.Optimizer, tokens: np.ndarray, step: int, config: TrainConfig,
            validation: Packed | None) -> dict[str, object]:
    """One step, and an evaluation if it is due: a row of the log. Steps count from 0, rows from 1."""
    began, lr, done = time.perf_counter(), config.lr_at(step), step + 1
    loss, norm = train_step(model, optimiser, batch_at(tokens, step, config), lr, config.clip)
    if not math.isfinite(loss) or not math.isfinite(norm):
        raise FloatingPointError(f"step {step} has loss {loss} and a gradient of norm {norm} at lr={lr:.3g}: the peak "
                                 f"lr={config.lr} is too high, or the weights were not finite before")
    row = {"step": done, "tokens": done * config.batch * config.length, "lr": f"{lr:.6g}", "loss": f"{loss:.6f}",
           "gradient_norm": f"{norm:.4f}", "seconds": f"{time.perf_counter() - began:.3f}"}
    if validation is not None and (done % config.evaluate_every == 0 or done == config.steps):
        model.eval()
        row["validation_bits_per_byte"] = f"{packed_bits_per_byte(model, validation, config.length):.5f}"
        model.train()
    return row


def train_step(model: nn.Module, optimiser: torch.optim.Optimizer, batch: tuple[Tensor, Tensor], lr: float,
               clip: float) -> tuple[float, float]:
    """One step of the optimiser; nothing is changed where the gradient is not finite.

    Returns: the loss before the step in nats a token, and the norm of its gradient before clipping.
    """
    ids, targets = batch
    loss = F.cross_entropy(model(ids).flatten(0, 1), targets.flatten())
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
    for group in optimiser.param_groups:
        group["lr"] = lr * group["share"]
    if torch.isfinite(norm):
        optimiser.step()
    return float(loss.detach()), float(norm)


def _headline(row: dict[str, object], before: str | None) -> str:
    """The text in front of the progress bar: the loss, and the last evaluation."""
    tail = (before or "").partition(",")[2]
    if "validation_bits_per_byte" in row:
        tail = f" validation {float(row['validation_bits_per_byte']):.3f} bits/byte"
    return f"loss {float(row['loss']):.3f}" + ("," + tail.rstrip(": ") if tail else "")


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: two processes that write one run would spoil it. The lock goes with its process."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(f"one process trains in a folder at a time: another one is at work in {str(folder)!r}; wait for "
                         "it or stop it") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def held_interrupts() -> Iterator[list[int]]:
    """Collect Ctrl-C and a polite kill, to be acted on between two steps; a second Ctrl-C acts at once."""
    caught: list[int] = []

    def note(number, frame):
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    if threading.current_thread() is not threading.main_thread():     # only the main thread may listen to signals
        yield caught
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
