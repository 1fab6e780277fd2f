"""The recipe of the models in `data/`: text, vocabulary, two phases of training, measurement.

    zamba-lab train zamba2-nano          also zamba1-nano, mamba2-nano, transformer-nano
    zamba-lab train shipped              all four, one after the other

All four read the same windows in the same order, with the same arguments, chosen by short runs of zamba2-nano and mamba2-nano
(`data/README.md` says which, and what came of other weight decays). A recipe that was interrupted or killed continues where it was
when it is started again. Nothing is written to the model's folder before the model is trained and measured.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from zamba_lab import corpora
from zamba_lab.checkpoints import save
from zamba_lab.config import ZambaConfig
from zamba_lab.config.presets import SHIPPED
from zamba_lab.corpora import Document
from zamba_lab.evaluate import document_bits, xz_bits, xz_bits_per_document
from zamba_lab.model import Zamba
from zamba_lab.recipes.picture import curve_svg
from zamba_lab.recipes.text import PROSE, PYTHON, Text, domain, shipped_text
from zamba_lab.train.config import TrainConfig, annealing
from zamba_lab.train.loop import train
from zamba_lab.train.metrics import read_metrics
from zamba_lab.train.mixture import Mixture
from zamba_lab.train.schedules import Cosine

PHASE_1 = TrainConfig(
    steps=4800,
    batch=2,
    length=512,
    max_epochs=2.0,
    lr=3e-3,
    shared_lr=0.3,
    schedule=Cosine(warmup=100, final=0.5),
    weight_decay=1.0,
    evaluate_every=400,
    checkpoint_every=100,
)
# Published is 60 % replay; there are so few help topics that 40 % of them would be read 13 times: held-out prose was at its best after
# four (1.544 bits a byte of mamba2-nano's) and at 1.615 after eight.
REPLAY = 0.85
PHASE_2 = annealing(PHASE_1, steps=1300, length=1024, max_epochs=None, evaluate_every=100)
MANIFEST, CURVES, SUMS = "manifest.json", "curves.svg", "SHA256SUMS"  # of all models of a folder
SUMMED = (".safetensors", ".json", ".csv", ".parquet")


def make(
    name: str, out: Path, run: Path, model_config: ZambaConfig | None = None, phases: tuple[TrainConfig, TrainConfig] = (PHASE_1, PHASE_2)
) -> dict:
    """Follow the recipe; the metrics that are also written to `out/metrics.json`.

    Args:
        name: one of the shipped models.
        out: folder for the model: config, weights, tokenizer, metrics and curve. The manifest of the text and a picture of
            all models' curves go beside it.
        run: folder for the two runs, `pretrain` and `anneal`.
    """
    config = ZambaConfig.preset(name) if model_config is None else model_config
    text = shipped_text(config.vocab_size)
    if (out.parent / MANIFEST).exists():
        print(corpora.check(text.documents, out.parent / MANIFEST) or "the corpus is the one of the manifest")
    model = trained(config, text, run, phases)
    rows, window = joined_metrics(run, phases), phases[1].length
    metrics = {
        "training": training_facts(model, text, rows, phases),
        "bits_per_byte": measure(model, text.documents, window),
        "measured": f"each document alone from its start, windows of {window} tokens moved by {window // 2}",
    }
    ratio = sum(packed.n_bytes for packed in text.train.values()) / sum(len(packed.tokens) for packed in text.train.values())
    write(out, model, text.documents, thin(rows, ratio), metrics)
    return metrics


def trained(config: ZambaConfig, text: Text, run: Path, phases: tuple[TrainConfig, TrainConfig]) -> Zamba:
    """Phase 1 on Python; phase 2 branches from it, on Python and prose."""
    torch.manual_seed(phases[0].seed)
    model = Zamba(config)
    model.tokenizer = text.tokenizer
    first, second = mixtures(text)
    train(model, first, phases[0], run / "pretrain", text.validation)
    return train(model, second, phases[1], run / "anneal", text.validation, branch_from=run / "pretrain")


def mixtures(text: Text) -> tuple[Mixture, Mixture]:
    """What each phase reads."""
    python, prose = (text.train[name].tokens for name in (PYTHON, PROSE))
    return Mixture({PYTHON: python}), Mixture.annealing(python, prose, REPLAY)


def joined_metrics(run: Path, phases: tuple[TrainConfig, TrainConfig]) -> list[dict]:
    """The rows of both phases, the second's steps and tokens counted on."""
    first, second = (read_metrics(run / name) for name in ("pretrain", "anneal"))
    tokens = phases[0].steps * phases[0].batch * phases[0].length
    return first + [row | {"step": row["step"] + phases[0].steps, "tokens": row["tokens"] + tokens} for row in second]


def training_facts(model: Zamba, text: Text, rows: list[dict], phases: tuple[TrainConfig, TrainConfig]) -> dict:
    """What was run, how long and where."""
    seconds = sum(row["seconds"] for row in rows)
    epochs = {
        name: mixture.epochs(phase.steps * phase.batch, phase.length)
        for name, mixture, phase in zip(("pretrain", "anneal"), mixtures(text), phases)
    }
    return {
        "parameters": model.config.n_params,
        "steps": len(rows),
        "tokens": rows[-1]["tokens"],
        "epochs": {phase: {name: round(n, 2) for name, n in counts.items()} for phase, counts in epochs.items()},
        "phases": [phase.facts() for phase in phases],
        "minutes": round(seconds / 60, 1),
        "tokens_per_second": round(rows[-1]["tokens"] / seconds),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def measure(model: Zamba, documents: Sequence[Document], window: int) -> dict:
    """Bits per byte of each held-out split: the model's, in all and by domain, and what `xz -9` needs."""
    measured = {}
    training_texts = corpora.texts(documents, "train")
    for split in ("validation", "test"):
        held = [document for document in documents if document.split == split]
        texts, sizes = [document.text for document in held], np.array([document.n_bytes for document in held])
        bits = document_bits(model, texts, model.tokenizer, window, window // 2)
        n_bytes = int(sizes.sum())
        measured[split] = {"bytes": n_bytes, "documents": len(held), "model": round(bits.sum() / n_bytes, 4)}
        for name in (PROSE, PYTHON):
            in_domain = np.array([domain(document) == name for document in held])
            measured[split][f"model_{name}"] = round(bits[in_domain].sum() / max(1, int(sizes[in_domain].sum())), 4)
        measured[split] |= {
            "xz_one_file": round(xz_bits(texts) / n_bytes, 4),
            "xz_file_by_file": round(sum(xz_bits_per_document(texts)) / n_bytes, 4),
            "xz_after_training_text": round(xz_bits(texts, training_texts) / n_bytes, 4),
        }
    return measured


def thin(rows: list[dict], bytes_per_token: float, points: int = 100) -> list[dict[str, str]]:
    """The rows in about `points`: the mean training loss since the one before, and the evaluations, in bits per byte."""
    every = max(1, len(rows) // points)
    curve = []
    for start in range(0, len(rows), every):
        group = rows[start : start + every]
        loss = sum(row["loss"] for row in group) / len(group)
        point = {
            "step": str(group[-1]["step"]),
            "tokens": str(group[-1]["tokens"]),
            "lr": f"{group[-1]['lr']:.6g}",
            "train_bits_per_byte": f"{loss / math.log(2) / bytes_per_token:.4f}",
        }
        for name in (PYTHON, PROSE):
            key = f"{name}_bits_per_byte"
            bits = [row[key] for row in group if row.get(key) is not None]
            point[key] = f"{bits[-1]:.5f}" if bits else ""
        curve.append(point)
    return curve


def write(out: Path, model: Zamba, documents: Sequence[Document], curve: list[dict[str, str]], metrics: dict) -> None:
    """Write the model's folder, and what it shares with the others beside it."""
    save(model, out)
    corpora.save_manifest(documents, out.parent / MANIFEST)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    with open(out / "curve.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, curve[0])
        writer.writeheader()
        writer.writerows(curve)
    (out.parent / CURVES).write_text(picture(out.parent), encoding="utf-8")
    (out.parent / SUMS).write_text(sums(out.parent), encoding="utf-8")


def sums(folder: Path) -> str:
    """The SHA-256 of each weight, config and result in a folder, as sha256sum checks them."""
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.suffix in SUMMED}
    return "".join(f"{hashlib.sha256(files[name].read_bytes()).hexdigest()}  {name}\n" for name in sorted(files))


def learning_curves(data: Path = SHIPPED["zamba2-nano"].parent, domain: str = PYTHON) -> dict[str, tuple[list, list]]:
    """Bits per byte of held-out text over million tokens, of every model of a folder: name -> (x, y)."""
    curves = {}
    for file in sorted(data.glob("*/curve.csv")):
        with open(file, newline="", encoding="utf-8") as rows:
            points = [
                (int(row["tokens"]) / 1e6, float(row[f"{domain}_bits_per_byte"]))
                for row in csv.DictReader(rows)
                if row.get(f"{domain}_bits_per_byte")
            ]
        if points:
            curves[file.parent.name] = tuple(map(list, zip(*points)))
    return curves


def picture(data: Path) -> str:
    """Held-out Python over training, every model of the folder, as SVG."""
    lines = {name: list(zip(*xy)) for name, xy in learning_curves(data).items()}
    return curve_svg(lines, title="Held-out Python, in two phases", x_label="million tokens", y_label="bits per byte", top=3.0)


def make_all(out: Path, run: Path) -> dict[str, dict]:
    """Every shipped model into its folder of `out`; those whose runs are done are only measured again."""
    return {name: make(name, out / name, run / name) for name in SHIPPED}
