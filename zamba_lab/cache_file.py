"""A cache on the disk: a safetensors file whose metadata says of which model, config and tokens it is.

It is written whole or not at all. Reading checks that it is undamaged and of the same weights: other weights would run on with it and
give wrong results without an error.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zamba_lab.writing import write

FORMAT = "zamba_lab cache 1"


def hash_of(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, dtypes, shapes and bytes, in the order of the names, as 64 hexadecimal digits."""
    sha = hashlib.sha256()
    for name in sorted(tensors):
        t = tensors[name].detach().contiguous().cpu()
        sha.update(f"{name} {t.dtype} {tuple(t.shape)}\n".encode())
        sha.update(t.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def save(path: str | Path, tensors: dict[str, Tensor], length: int, batch: int, model: Any) -> Path:
    """Write a cache's tensors, "tokens" among them if they are known. Returns the path. Raises OSError if it cannot be written."""
    from safetensors.torch import save as to_bytes

    model = getattr(model, "_orig_mod", model)  # inside what torch.compile made
    weights = model.state_dict()
    about = {
        "format": FORMAT,
        "model": hash_of(weights),
        "dtype": _dtype(weights),
        "config": json.dumps(vars(model.config), sort_keys=True),
        "tokens": hash_of({"tokens": tensors["tokens"].long()}) if "tokens" in tensors else "",
        "content": hash_of(tensors),
        "length": str(length),
        "batch": str(batch),
    }
    path = Path(path)
    write(path, to_bytes({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, metadata=about))
    return path


def load(path: str | Path, model: Any) -> tuple[dict[str, Tensor], int, int]:
    """The tensors of a file on the model's device, the number of positions that they stand for, and the batch.

    Raises OSError if the file is missing; ValueError if it is no whole cache, or of another config, dtype or weights than the model's.
    """
    from safetensors import SafetensorError, safe_open

    model = getattr(model, "_orig_mod", model)
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            if about.get("format") != FORMAT:
                raise ValueError(
                    f"{str(path)!r} is not a saved cache of this version: its format is {about.get('format')!r}, not {FORMAT!r}. "
                    "Write one with cache.save(path)"
                )
            _must_be_of(model, about, path)
            tensors = {name: file.get_tensor(name) for name in file.offset_keys()}
    except SafetensorError as error:
        raise ValueError(f"{str(path)!r} is not a whole cache file ({error}): read the prompt again and save anew") from error
    if hash_of(tensors) != about["content"]:
        raise ValueError(f"{str(path)!r} is damaged: its tensors are not those that were saved. Read the prompt again and save anew")
    device = next(t.device for t in model.state_dict().values())
    return {name: t.to(device) for name, t in tensors.items()}, int(about["length"]), int(about["batch"])


def _must_be_of(model: Any, about: Mapping[str, str], path: str | Path) -> None:
    """Raise ValueError if a saved cache is not of this model: config first, whose differences have names."""
    saved, weights = json.loads(about["config"]), model.state_dict()
    here = json.loads(json.dumps(vars(model.config)))
    differing = [
        f"{name} {saved.get(name)} there, {here.get(name)} here" for name in sorted({*saved, *here}) if saved.get(name) != here.get(name)
    ]
    what = f"the cache in {str(path)!r} is of another model"
    if differing:
        raise ValueError(f"{what}: its config has {'; '.join(differing[:4])}. Load it with the model that made it")
    if about["dtype"] != _dtype(weights):
        raise ValueError(f"{what}: its weights were {about['dtype']}, these are {_dtype(weights)}. Convert the model with .to() first")
    if about["model"] != (mine := hash_of(weights)):
        raise ValueError(
            f"{what}: the hash of its weights is {about['model'][:12]}, this model's {mine[:12]}. Load it with the weights that made "
            "it, or read the prompt again"
        )


def _dtype(weights: Mapping[str, Tensor]) -> str:
    """The dtypes of a model's tensors, in words."""
    return ", ".join(sorted({str(t.dtype).removeprefix("torch.") for t in weights.values()}))
