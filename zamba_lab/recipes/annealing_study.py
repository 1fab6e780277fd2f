"""The annealing study: from one trunk, does the second phase help by its falling rate, by its text, or by both?

    zamba-lab train annealing-study

Five arms branch from each trunk and see the same number of tokens:

    constant/python    the rate stays at the peak             phase 1's text
    constant/mix       likewise                               60 % phase 1's text, 40 % prose
    decay/python       falls exponentially to a hundredth     phase 1's text
    decay/mix          likewise                               60 % phase 1's text, 40 % prose: as published
    decay/prose        likewise                               prose alone

The prose is the language's help topics (`text.py`). A trunk's seed decides its weights and its order of text; arms of one
trunk are paired by it. Measured is held-out text of both domains, validation and test together, in bits a byte. With five
trunks the exact sign-flip test cannot go below p = 1/16, so nothing is called significant: the intervals are what there is.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from zamba_lab.config import ZambaConfig
from zamba_lab.config.presets import SHIPPED
from zamba_lab.corpora import Packed
from zamba_lab.model import Zamba
from zamba_lab.recipes.text import PROSE, PYTHON, Text, packed, shipped_text
from zamba_lab.train.batches import packed_bits_per_byte
from zamba_lab.train.config import TrainConfig
from zamba_lab.train.loop import train
from zamba_lab.train.metrics import Writer
from zamba_lab.train.mixture import REPLAY, Mixture
from zamba_lab.train.schedules import Constant, Exponential

SEEDS = (0, 1, 2, 3, 4)
MODEL = ZambaConfig(
    vocab_size=2048,
    d_model=64,
    n_layers=6,
    d_state=16,
    headdim=16,
    n_shared_blocks=2,
    hybrid_layers=(1, 3, 5),
    attn_heads=4,
    d_mlp=128,
    lora_rank=4,
    max_context=256,
    init="small",
    link_gain=1.0,
)
TRUNK = TrainConfig(
    steps=800,
    batch=4,
    length=256,
    lr=3e-3,
    shared_lr=0.3,
    schedule=Constant(warmup=50),
    weight_decay=1.0,
    max_epochs=None,
    evaluate_every=10_000,
    checkpoint_every=250,
)
BRANCH = 200  # steps after the trunk
RATES = {"constant": Constant(warmup=4), "decay": Exponential(warmup=4)}
SHARES = {"python": 1.0, "mix": REPLAY, "prose": 0.0}  # of phase 1's text
ARMS = ("constant/python", "constant/mix", "decay/python", "decay/mix", "decay/prose")
# Each difference: the arm with the change, and the arm without.
CONTRASTS = {
    "the falling rate, on phase 1's text": ("decay/python", "constant/python"),
    "the falling rate, on the mixture": ("decay/mix", "constant/mix"),
    "the mixture, at a constant rate": ("constant/mix", "constant/python"),
    "the mixture, at a falling rate": ("decay/mix", "decay/python"),
    "both": ("decay/mix", "constant/python"),
    "replay, at a falling rate": ("decay/mix", "decay/prose"),
}
FIELDS = ("seed", "arm", PYTHON, PROSE)
RESULTS, SUMMARY = "results.csv", "summary.json"
STORED = SHIPPED["zamba2-nano"].parent / "studies" / "annealing"


def study(
    out: Path,
    runs: Path,
    seeds: Sequence[int] = SEEDS,
    model: ZambaConfig = MODEL,
    trunk: TrainConfig = TRUNK,
    branch: int = BRANCH,
    jobs: int = 2,
) -> str:
    """Train what is not yet trained, one trunk a process; write `out/results.csv` and `out/summary.json`.

    Args:
        runs: folder for the trunks and their branches; a study that was stopped continues there.
        branch: steps of a branch.
        jobs: processes at a time, each on one thread.

    Returns: the differences as a table.
    """
    job = partial(one_trunk, runs=runs, model_config=model, trunk=trunk, branch=branch)
    if jobs == 1:
        rows = [row for seed in seeds for row in job(seed)]
    else:
        with ProcessPoolExecutor(min(jobs, len(seeds)), mp_context=get_context("spawn")) as pool:
            rows = [row for rows_of_seed in pool.map(job, seeds) for row in rows_of_seed]
    out.mkdir(parents=True, exist_ok=True)
    with open(out / RESULTS, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(rows)
    summary = {
        "parameters": model.n_params,
        "trunk": trunk.facts(),
        "branch_steps": branch,
        "seeds": list(seeds),
        "differences": differences(rows),
    }
    (out / SUMMARY).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return table(summary["differences"])


def read(folder: Path = STORED) -> list[dict]:
    """The differences that a study left in a folder; those of the stored study if none is given."""
    return json.loads((folder / SUMMARY).read_text(encoding="utf-8"))["differences"]


def one_trunk(seed: int, runs: Path, model_config: ZambaConfig, trunk: TrainConfig, branch: int) -> list[dict]:
    """Train a trunk and its branches: a row of results for the trunk itself and for each arm."""
    torch.set_num_threads(1)
    text, folder = shipped_text(model_config.vocab_size), runs / f"seed-{seed}"
    trunk = replace(trunk, seed=seed)
    torch.manual_seed(seed)
    model = train(Zamba(model_config), mixture(text, "python"), trunk, folder / "trunk")
    rows = [{"seed": seed, "arm": "trunk", **held_out(model, text, trunk.length)}]
    for arm in ARMS:
        branched(model, text, trunk, folder, arm, branch)
        rows.append({"seed": seed, "arm": arm, **held_out(model, text, trunk.length)})
    return rows


def branched(
    model: Zamba,
    text: Text,
    trunk: TrainConfig,
    folder: Path,
    arm: str,
    steps: int,
    validation: Mapping[str, Packed] | None = None,
    on_row: Sequence[Writer] = (),
) -> Zamba:
    """Train `steps` of an arm from the run `folder / "trunk"`, whose weights the model gets, into a run beside it.

    Args:
        trunk: what the trunk was trained with.
        validation, on_row: as `loop.train` takes them.
    """
    rate, data = arm.split("/")
    # Its own order of windows: with the trunk's it would read again what the trunk has just read.
    config = replace(trunk, steps=steps, schedule=RATES[rate], seed=trunk.seed + 1000)
    return train(
        model, mixture(text, data), config, folder / arm.replace("/", "-"), validation, branch_from=folder / "trunk", on_row=on_row
    )


def mixture(text: Text, name: str) -> Mixture:
    python, prose = (text.train[domain].tokens for domain in (PYTHON, PROSE))
    return Mixture({PYTHON: python, PROSE: prose}, {PYTHON: SHARES[name], PROSE: 1 - SHARES[name]})


def held_out(model: Zamba, text: Text, length: int) -> dict[str, float]:
    """Bits per byte of each domain, validation and test together."""
    splits = [packed(text.documents, split, text.tokenizer) for split in ("validation", "test")]
    measured = {}
    for name in (PYTHON, PROSE):
        parts = [split[name] for split in splits]
        bits = sum(packed_bits_per_byte(model, part, length) * part.n_bytes for part in parts)
        measured[name] = round(bits / sum(part.n_bytes for part in parts), 5)
    return measured


def differences(rows: Sequence[dict]) -> list[dict]:
    """Each contrast in each domain: mean of the paired differences in bits a byte, below 0 where the change helps, its 95 %
    interval (Student's t over trunks), the exact sign-flip p, and the differences themselves."""
    from scipy import stats

    value = {(row["arm"], int(row["seed"]), name): float(row[name]) for row in rows for name in (PYTHON, PROSE)}
    seeds = sorted({int(row["seed"]) for row in rows})
    results = []
    for contrast, (changed, without) in CONTRASTS.items():
        for name in (PYTHON, PROSE):
            each = np.array([value[changed, seed, name] - value[without, seed, name] for seed in seeds])
            wide = stats.t.ppf(0.975, len(each) - 1) * stats.sem(each) if len(each) > 1 else np.nan
            flips = stats.permutation_test((each,), np.mean, permutation_type="samples", n_resamples=np.inf)
            results.append(
                {
                    "what": contrast,
                    "domain": name,
                    "mean": round(float(each.mean()), 5),
                    "low": round(float(each.mean() - wide), 5),
                    "high": round(float(each.mean() + wide), 5),
                    "p": round(float(flips.pvalue), 4),
                    "n": len(each),
                    "each": [round(float(difference), 5) for difference in each],
                }
            )
    return results


def table(results: Sequence[dict]) -> str:
    """The differences as Markdown."""
    lines = ["| what | domain | bits a byte | 95 % interval | sign-flip p | n |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row['what']} | {row['domain']} | {row['mean']:+.4f} | {row['low']:+.4f} .. {row['high']:+.4f} | {row['p']:.3g} | {row['n']} |"
        for row in results
    ]
    return "\n".join(lines)
