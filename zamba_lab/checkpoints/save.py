"""Writing a checkpoint, so that a killed save leaves the old one whole.

The layout is the published one where the reference library has the variant (`config_write.limits` says why not), so
that it opens what we write and computes the same; else our own names, which only we open.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from zamba_lab.blocks.linear import Int8Matrix
from zamba_lab.checkpoints.binding import Binding, bind
from zamba_lab.checkpoints.config_write import write_config
from zamba_lab.checkpoints.files import COMMITTED, CONFIG, INDEX, PROGRESS_ABOVE, SINGLE, STAGED, settle
from zamba_lab.checkpoints.layouts import BY_MODEL_TYPE
from zamba_lab.config import ZambaConfig
from zamba_lab.model import Zamba

MAX_SHARD_BYTES = 5 * 10**9


def save(model: Zamba, folder: str | Path, max_shard_bytes: int = MAX_SHARD_BYTES) -> Path:
    """Write config.json, the weights and, if the model has one, the tokenizer into a folder; returns the folder.

    Everything is written into a hidden folder inside first. Renaming that is the moment at which the new checkpoint
    counts: killed before, the old one is untouched; killed after, the next `load` or `save` finishes the moving. Other
    files in the folder stay.

    Args:
        max_shard_bytes: weights are split into files of about this size, with an index; a parameter is never split.

    Raises ValueError if the model has no weights (meta device), is quantised, or max_shard_bytes is below 1.
    """
    if max_shard_bytes < 1:
        raise ValueError(f"max_shard_bytes must be 1 or more: got {max_shard_bytes}")
    if any(p.is_meta for p in model.parameters()):
        raise ValueError("a model on the meta device has no weights to save")
    if any(isinstance(module, Int8Matrix) for module in model.modules()):
        raise ValueError(
            "an int8 model is not saved, since no published layout holds one: save the model before "
            "`quantize`, and quantise it after loading"
        )
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"a checkpoint is saved into a folder: {str(folder)!r} is a file")
    folder.mkdir(parents=True, exist_ok=True)
    settle(folder)
    staged = folder / STAGED
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    try:
        write(model, staged, max_shard_bytes)
        os.replace(staged, folder / COMMITTED)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    settle(folder)
    return folder


def write(model: Zamba, folder: Path, max_shard_bytes: int) -> None:
    """The files themselves, into an empty folder."""
    from safetensors.torch import save_file
    from tqdm import tqdm

    config, parameters = model.config, dict(model.named_parameters())
    raw = write_config(config, dtype=str(model.embedding.weight.dtype).removeprefix("torch."))
    layout = next(iter(BY_MODEL_TYPE[raw["model_type"]].values()))
    shards = list(_shards(bind(layout, config, parameters), parameters, max_shard_bytes))
    where, total, size = {}, 0, sum(p.nbytes for p in parameters.values())
    for n, shard in enumerate(tqdm(shards, desc="saving", disable=size < PROGRESS_ABOVE), start=1):
        name = SINGLE if len(shards) == 1 else f"model-{n:05d}-of-{len(shards):05d}.safetensors"
        tensors = dict(pair for binding in shard for pair in _stored(binding, parameters, config))
        save_file(tensors, folder / name, metadata={"format": "pt"})
        where |= dict.fromkeys(tensors, name)
        total += sum(t.nbytes for t in tensors.values())
    if len(shards) > 1:
        _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": where})
    _write_json(folder / CONFIG, raw)
    for path in folder.glob("*.safetensors"):
        shutil.copymode(folder / CONFIG, path)  # the writer makes its files private
    if model.tokenizer is not None:
        model.tokenizer.save(folder)


def _shards(bindings: list[Binding], parameters: dict[str, Tensor], most: int) -> Iterator[list[Binding]]:
    """The bindings in order, cut where a file would grow over `most` bytes."""
    shard, held = [], 0
    for binding in bindings:
        size = sum(parameters[name].nbytes for name in binding.ours)
        if shard and held + size > most:
            yield shard
            shard, held = [], 0
        shard.append(binding)
        held += size
    yield shard


def _stored(binding: Binding, parameters: dict[str, Tensor], config: ZambaConfig) -> Iterator[tuple[str, Tensor]]:
    ours = [parameters[name].detach().cpu() for name in binding.ours]
    for (name, *_), tensor in zip(binding.stored, binding.transform.to_stored(ours, config)):
        yield name, tensor.contiguous()


def _write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
