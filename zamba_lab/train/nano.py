"""The recipe of `data/zamba2-nano`, whole: text, vocabulary, training, measurement.

    python -m zamba_lab.train.nano --out data/zamba2-nano

Stopped by Ctrl-C, or killed, it goes on where it was when it is started again. Nothing is written to `--out` before
the model is trained and measured.
"""
from __future__ import annotations

import argparse
import csv
import json
import math
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from zamba_lab import corpora
from zamba_lab.checkpoints import save
from zamba_lab.config import ZambaConfig
from zamba_lab.corpora import Document
from zamba_lab.model import Zamba
from zamba_lab.train.config import TrainConfig
from zamba_lab.train.heldout import document_bits, xz_bits, xz_bits_per_document
from zamba_lab.train.loop import train
from zamba_lab.train.metrics import read_metrics
from zamba_lab.train.picture import curve_svg
from zamba_lab.train.schedules import WSD

MODEL = ZambaConfig.preset("zamba2-nano")
TRAINING = TrainConfig(steps=2500, batch=4, length=512, max_epochs=2.0, lr=3e-3, shared_lr=0.3,
                       schedule=WSD(warmup=60, decay=0.3), weight_decay=1.0, evaluate_every=500, checkpoint_every=50)


def make_nano(out: Path, run: Path, model_config: ZambaConfig = MODEL, config: TrainConfig = TRAINING) -> dict:
    """Follow the recipe; the metrics that are also written to `out/metrics.json`.

    Args:
        out: folder for the model: config, weights, tokenizer, manifest, metrics and curve.
        run: folder for checkpoints and the log of every step.
    """
    documents = corpora.stdlib_documents()
    if (out / "manifest.json").exists():
        print(corpora.check(documents, out / "manifest.json") or "the corpus is the one of the manifest")
    tokenizer = corpora.train_tokenizer(corpora.texts(documents, "train"), model_config.vocab_size)
    packed, validation = (corpora.pack(corpora.texts(documents, split), tokenizer) for split in ("train", "validation"))
    torch.manual_seed(config.seed)
    model = Zamba(model_config)
    model.tokenizer = tokenizer
    train(model, packed.tokens, config, run, validation)
    curve = thin(read_metrics(run), bytes_per_token=packed.n_bytes / len(packed.tokens))
    metrics = {
        "training": training_facts(model, config, len(packed.tokens), read_metrics(run)),
        "bits_per_byte": measure(model, documents, config.length),
        "measured": f"each document alone from its start, windows of {config.length} tokens moved by {config.length // 2}",
    }
    write(out, model, documents, curve, metrics)
    return metrics


def training_facts(model: Zamba, config: TrainConfig, corpus_tokens: int, log: list[dict]) -> dict:
    """What was run, how long and where."""
    seconds = sum(row["seconds"] for row in log)
    tokens = log[-1]["tokens"]
    return {"parameters": model.config.n_params, "steps": len(log), "tokens": tokens, "epochs": round(tokens / corpus_tokens, 2),
            "seed": config.seed, "batch": config.batch, "length": config.length, "lr": config.lr,
            "shared_lr": config.shared_lr, "weight_decay": config.weight_decay, "schedule": str(config.schedule),
            "minutes": round(seconds / 60, 1), "tokens_per_second": round(tokens / seconds),
            "python": platform.python_version(), "torch": torch.__version__, "threads": torch.get_num_threads()}


def measure(model: Zamba, documents: Sequence[Document], window: int) -> dict:
    """Bits per byte of each held-out split: the model's, in all and by kind of text, and what `xz -9` needs."""
    found = {}
    known = corpora.texts(documents, "train")
    for split in ("validation", "test"):
        held = [document for document in documents if document.split == split]
        texts = [document.text for document in held]
        bits = document_bits(model, texts, model.tokenizer, window, window // 2)
        n_bytes = sum(document.n_bytes for document in held)
        found[split] = {"bytes": n_bytes, "documents": len(held), "model": round(bits.sum() / n_bytes, 4)}
        for kind, is_prose in (("prose", True), ("python", False)):
            at = [k for k, document in enumerate(held) if document.path.startswith("topics/") == is_prose]
            found[split][f"model_{kind}"] = round(bits[at].sum() / max(1, sum(held[k].n_bytes for k in at)), 4)
        found[split] |= {"xz_one_file": round(xz_bits(texts) / n_bytes, 4),
                         "xz_file_by_file": round(sum(xz_bits_per_document(texts)) / n_bytes, 4),
                         "xz_after_training_text": round(xz_bits(texts, known) / n_bytes, 4)}
    return found


def thin(log: list[dict], bytes_per_token: float, points: int = 100) -> list[dict[str, str]]:
    """The log in about `points` rows: the mean training loss since the row before, and the evaluations, in bits per byte."""
    every = max(1, len(log) // points)
    curve = []
    for at in range(0, len(log), every):
        rows = log[at:at + every]
        loss = sum(row["loss"] for row in rows) / len(rows)
        evaluated = [row["validation_bits_per_byte"] for row in rows if row.get("validation_bits_per_byte") is not None]
        curve.append({"step": str(rows[-1]["step"]), "tokens": str(rows[-1]["tokens"]), "lr": f"{rows[-1]['lr']:.6g}",
                      "train_bits_per_byte": f"{loss / math.log(2) / bytes_per_token:.4f}",
                      "validation_bits_per_byte": f"{evaluated[-1]:.5f}" if evaluated else ""})
    return curve


def write(out: Path, model: Zamba, documents: Sequence[Document], curve: list[dict[str, str]], metrics: dict) -> None:
    """Fill the folder."""
    save(model, out)
    corpora.save_manifest(documents, out / "manifest.json")
    (out / "metrics.json").write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    with open(out / "curve.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, curve[0])
        writer.writeheader()
        writer.writerows(curve)
    (out / "curve.svg").write_text(picture(curve, metrics), encoding="utf-8")


def picture(curve: list[dict[str, str]], metrics: dict) -> str:
    """The curve beside what xz needs for the same validation text, as SVG."""
    lines = {name: [(int(row["tokens"]) / 1e6, float(row[f"{name}_bits_per_byte"])) for row in curve if row[f"{name}_bits_per_byte"]]
             for name in ("train", "validation")}
    levels = {"xz -9 (validation)": metrics["bits_per_byte"]["validation"]["xz_one_file"]}
    return curve_svg(lines, levels, title="zamba2-nano: training", x_label="million tokens", y_label="bits per byte", top=4.0)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m zamba_lab.train.nano", description="Train data/zamba2-nano anew.")
    parser.add_argument("--out", type=Path, default=Path("data/zamba2-nano"), help="folder for the model")
    parser.add_argument("--run", type=Path, default=Path("runs/zamba2-nano"), help="folder for checkpoints and the log")
    parser.add_argument("--threads", type=int, default=None, help="threads of one operation; torch's own choice if left out")
    given = parser.parse_args(arguments)
    if given.threads:
        torch.set_num_threads(given.threads)
    try:
        print(json.dumps(make_nano(given.out, given.run), indent=1))
    except KeyboardInterrupt as stop:
        print(f"{stop}; the same command goes on from there", file=sys.stderr)
        return 130
    except (FloatingPointError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
