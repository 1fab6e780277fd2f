"""A folder of token files, as `zamba-lab train --data` reads it.

    train.npy          (n,) ids, every document after the start token; memory-mapped, never read as a whole
    validation.npy     the same of held-out text, and validation.json: {"n_bytes": bytes of its text}; may be left out
    tokenizer.json     what made them; goes into the trained model's folder; may be left out
"""
from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

from zamba_lab.corpora import Packed
from zamba_lab.tokenizer import FILES, Tokenizer


class TokenFolder(NamedTuple):
    """What such a folder holds; None where it has no such file."""

    tokens: np.ndarray
    validation: Packed | None
    tokenizer: Tokenizer | None


def read_folder(folder: str | Path) -> TokenFolder:
    """Open a folder. Raises ValueError if it has no `train.npy`, or a file is not what it should be."""
    folder = Path(folder)
    train, held_out, n_bytes = (folder / name for name in ("train.npy", "validation.npy", "validation.json"))
    if not train.is_file():
        raise ValueError(f"training data is a folder with a file train.npy of token ids: {str(folder)!r} has none")
    validation = None
    if held_out.is_file():
        if not n_bytes.is_file():
            raise ValueError(f"beside {held_out.name} there must be {n_bytes.name} with its text's n_bytes: {str(folder)!r}")
        validation = Packed(_opened(held_out), int(json.loads(n_bytes.read_text(encoding="utf-8"))["n_bytes"]))
    tokenizer = Tokenizer.load(folder) if any((folder / name).is_file() for name in FILES) else None
    return TokenFolder(_opened(train), validation, tokenizer)


def write_folder(folder: str | Path, train: np.ndarray, validation: Packed | None = None, tokenizer: Tokenizer | None = None
                 ) -> None:
    """Write such a folder."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "train.npy", train)
    if validation is not None:
        np.save(folder / "validation.npy", validation.tokens)
        (folder / "validation.json").write_text(json.dumps({"n_bytes": int(validation.n_bytes)}) + "\n", encoding="utf-8")
    if tokenizer is not None:
        tokenizer.save(folder)


def _opened(file: Path) -> np.ndarray:
    try:
        return np.load(file, mmap_mode="r")
    except ValueError as error:
        raise ValueError(f"{file.name} must be an array of token ids as numpy saves it: {str(file)!r} ({error})") from error
