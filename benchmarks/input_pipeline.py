"""The input pipeline: which share of a training step is spent waiting for its data.

Real steps of the real loop, evaluation and checkpoints left out, on a mixture of two memory-mapped token files (60/40, 200
million tokens in all, written just before, so in the page cache as far as that goes), windows cut at documents or not: the
10 M Zamba2 of train_step, and its ablation's size, whose steps are the shortest and starve first. Beside it: what making one
batch takes in the thread that makes it, a step ahead. The first step stands apart: nothing is ahead of it, and it draws
the order of its epoch's windows, which a run does once an epoch.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from harness import milliseconds, repeats
from pairs import TINY
from train_step import ABLATION, ZAMBA2

import zamba_lab as zl
from zamba_lab.train import Mixture, TrainConfig, read_metrics, train
from zamba_lab.train.batches import micro_batches

# name: config, batch, length, steps
WORK = {"Zamba2": (ZAMBA2, 8, 512, 12), "Zamba2, ablation size": (ABLATION, 64, 32, 60)}
QUICK = {"Zamba2": (TINY, 2, 32, 3)}
TOKENS, FEW, DOCUMENT = 200_000_000, 20_000, 300


def token_files(folder: Path, vocab_size: int, count: int) -> Mixture:
    """Random ids, a document about every DOCUMENT tokens, in two files that are mapped, not read."""
    random, files = np.random.default_rng(0), {}
    for name, share in (("replay", 0.75), ("fresh", 0.25)):
        tokens = random.integers(3, vocab_size, int(share * count), dtype=np.uint16)
        tokens[::DOCUMENT] = 1
        np.save(folder / f"{name}.npy", tokens)
        files[name] = np.load(folder / f"{name}.npy", mmap_mode="r")
    return Mixture(files, {"replay": 0.6, "fresh": 0.4})


def waiting(name: str, config: zl.ZambaConfig, batch: int, length: int, steps: int, documents: bool, quick: bool) -> dict:
    training = TrainConfig(
        steps=max(2, repeats(steps, quick)),
        batch=batch,
        length=length,
        documents=documents,
        schedule="constant",
        lr=1e-4,
        evaluate_every=10**9,
        checkpoint_every=10**9,
    )
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        data = token_files(Path(folder), config.vocab_size, FEW if quick else TOKENS)
        train(zl.Zamba(config), data, training, Path(folder) / "run")
        rows, making = read_metrics(Path(folder) / "run"), []
        for step in range(1000, 1000 + repeats(20, quick)):
            began = time.perf_counter()
            micro_batches(data, step, training, 1)
            making.append(time.perf_counter() - began)
    start, *waited = (row["seconds_waiting"] for row in rows)
    took = [row["seconds"] for row in rows[1:]]
    how = "cut at documents" if documents else "whole windows"
    return {
        "work": f"{name} {config.n_params / 1e6:.1f} M, B={batch} T={length}, {how}, {len(rows)} steps",
        "waiting for data": f"{100 * sum(waited) / sum(took):.2f} % of the time",
        "target": "" if quick else "< 2 %",
        "longest wait": f"{1e3 * max(waited):.2f} ms",
        "the first wait": f"{1e3 * start:.0f} ms",
        "a step takes": milliseconds(took),
        "making a batch": milliseconds(making),
        "seconds": {"waiting": waited, "step": took, "making": making},
    }


def run(quick: bool = False) -> list[dict]:
    return [waiting(name, *work, documents, quick) for name, work in (QUICK if quick else WORK).items() for documents in (False, True)]
