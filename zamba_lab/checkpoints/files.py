"""The weight files of a checkpoint: which there are, what their headers say, and their tensors, memory-mapped.

Files are chosen by the index if there is one and never by a pattern: some repositories hold two layouts side by side.
Safetensors come first; a pickled file is read if there is nothing else, and only tensors are ever unpickled.
"""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from zamba_lab.checkpoints.errors import CheckpointError
from zamba_lab.checkpoints.json_values import read_object, take

CONFIG, SINGLE, INDEX, TOKENIZER = "config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json"
TOKENIZERS = (TOKENIZER, "tokenizer.model")  # the first that there is, is the model's
PICKLED, PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
PICKLED_SUFFIXES = (".bin", ".pt", ".pth")
STAGED, COMMITTED, MOVING = ".saving", ".saved", ".moving"  # the stages of a save, as hidden folders
WRITTEN = re.compile(r"config\.json|model\.safetensors(\.index\.json)?|model-\d{5}-of-\d{5}\.safetensors")
PROGRESS_ABOVE = 10**9  # bytes worth a progress bar
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


@dataclass(frozen=True)
class Header:
    """What a file's header says about one tensor. dtype: the format's word; a key of DTYPES if we can use it."""

    shape: tuple[int, ...]
    dtype: str


class Weights:
    """Tensors of one or many open files, by name. Close it after use (it is a context manager).

    `headers` are known at once and cost nothing. `read` maps a tensor into memory, without copying it and without
    touching it: pages come in when they are used. `peek` does so through a mapping of its own, which `forget` gives up
    with all the pages that were looked at. What was handed out stays valid.
    """

    def __init__(self, files: dict[Path, set[str] | None]):
        """files: each with the names it must hold, no more and no fewer, or None for whatever it holds.

        Raises CheckpointError if a file cannot be opened, or holds other tensors than it should.
        """
        self.headers: dict[str, Header] = {}
        self._path: dict[str, Path] = {}
        self._lasting: dict[Path, object] = {}
        self._passing: dict[Path, object] = {}
        for path, expected in files.items():
            opened = open_file(path)
            names = set(opened.keys())
            if expected is not None and names != expected:
                index = PICKLED_INDEX if path.suffix in PICKLED_SUFFIXES else INDEX
                raise CheckpointError(f"{path.name} does not hold what {index} says", missing=expected - names, left_over=names - expected)
            for name in names:
                part = opened.get_slice(name)
                self.headers[name] = Header(tuple(part.get_shape()), str(part.get_dtype()))
                self._path[name] = path

    def read(self, name: str) -> Tensor:
        return self._from(self._lasting, name)

    def peek(self, name: str) -> Tensor:
        return self._from(self._passing, name)

    def forget(self) -> None:
        self._passing.clear()

    def _from(self, handles: dict, name: str) -> Tensor:
        path = self._path[name]
        if path not in handles:
            handles[path] = open_file(path)
        return handles[path].get_tensor(name)

    def nbytes(self, name: str) -> int:
        header = self.headers[name]
        return DTYPES[header.dtype].itemsize * torch.Size(header.shape).numel()

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, *error) -> None:
        self._lasting.clear()
        self._passing.clear()


class Pickled:
    """A file of `torch.save` that holds a dict of tensors, with the methods of an open safetensors file."""

    def __init__(self, path: Path):
        held = torch.load(path, map_location="cpu", mmap=zipfile.is_zipfile(path), weights_only=True)
        if not isinstance(held, dict) or not all(isinstance(t, Tensor) and isinstance(n, str) for n, t in held.items()):
            raise TypeError("it holds something else than tensors by their names")
        self._held = held

    def keys(self) -> list[str]:
        return list(self._held)

    def get_tensor(self, name: str) -> Tensor:
        return self._held[name]

    def get_slice(self, name: str) -> Pickled.Slice:
        return Pickled.Slice(self._held[name])

    @dataclass(frozen=True)
    class Slice:
        """What there is to know of a tensor without reading it."""

        tensor: Tensor

        def get_shape(self) -> tuple[int, ...]:
            return tuple(self.tensor.shape)

        def get_dtype(self) -> str:
            return next((word for word, dtype in DTYPES.items() if dtype == self.tensor.dtype), str(self.tensor.dtype))


def open_file(path: Path):
    """An open weight file: keys(), get_slice(name), get_tensor(name). CheckpointError if it is not one."""
    if not path.is_file():
        raise CheckpointError(f"the weight file {path.name} is missing: there is no file {str(path)!r}")
    try:
        if path.suffix in PICKLED_SUFFIXES:
            return Pickled(path)
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, EOFError, pickle.UnpicklingError) as error:
        kind = "file of pickled tensors" if path.suffix in PICKLED_SUFFIXES else "safetensors file"
        raise CheckpointError(
            f"{str(path)!r}, {path.stat().st_size} bytes, is not a whole {kind}: truncated, or "
            f"something else ({(str(error).splitlines() or [type(error).__name__])[0]})"
        ) from error


def weight_files(folder: Path) -> dict[Path, set[str] | None]:
    """The weight files of a folder as `Weights` takes them.

    With an index: the files that it names. Else model.safetensors, or the only safetensors file there is. Else what is
    pickled, by its index or as pytorch_model.bin.
    """
    if (folder / INDEX).is_file():
        return {folder / shard: names for shard, names in read_index(folder / INDEX).items()}
    if (folder / SINGLE).is_file():
        return {folder / SINGLE: None}
    found = sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return {found[0]: None}
    if not found and (folder / PICKLED_INDEX).is_file():
        return {folder / shard: names for shard, names in read_index(folder / PICKLED_INDEX).items()}
    if not found and (folder / PICKLED).is_file():
        return {folder / PICKLED: None}
    if found:
        raise CheckpointError(
            f"{str(folder)!r} holds {len(found)} safetensors files and no {INDEX} that says which to "
            f"read: {[path.name for path in found][:8]}"
        )
    names = sorted(path.name for path in folder.iterdir())
    raise CheckpointError(f"{str(folder)!r} is not a checkpoint: it holds neither {SINGLE} nor {INDEX}, but {names[:8]}")


def read_index(path: Path) -> dict[str, set[str]]:
    """The tensors of each file that an index names. File names are bare: an index cannot point out of its folder."""
    shards: dict[str, set[str]] = {}
    suffix = "bin" if path.name == PICKLED_INDEX else "safetensors"
    for name, shard in take(read_object(path), "weight_map", "dict").items():
        if not isinstance(shard, str) or not re.fullmatch(rf"[\w.-]+\.{suffix}", shard):
            raise CheckpointError(f"{path.name} must name {suffix} files of its own folder: for {name!r} it names {shard!r}")
        shards.setdefault(shard, set()).add(name)
    if not shards:
        raise CheckpointError(f"{path.name} names no tensors: {str(path)!r}")
    return shards


def settle(folder: Path) -> None:
    """Finish a save that had written everything: drop the old checkpoint's files, move the new ones up. Mostly a no-op.

    Each step can be repeated, so that a process killed anywhere leaves what the next one finishes.
    """
    try:
        if (folder / COMMITTED).is_dir():
            new = {path.name for path in (folder / COMMITTED).iterdir()}
            for path in folder.iterdir():
                old = WRITTEN.fullmatch(path.name) or path.name in TOKENIZERS and new & set(TOKENIZERS)
                if old and path.name not in new:
                    path.unlink()
            os.replace(folder / COMMITTED, folder / MOVING)
        if (folder / MOVING).is_dir():
            for path in sorted((folder / MOVING).iterdir()):
                os.replace(path, folder / path.name)
            (folder / MOVING).rmdir()
    except OSError as error:
        raise CheckpointError(f"a save into {str(folder)!r} was stopped half-way and cannot be finished: {error}") from error
