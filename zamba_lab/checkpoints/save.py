"""Writing a checkpoint, so that a killed save leaves the old one whole.

The layout is the published one where the reference library has the variant (`config_write.limits` says why not), so
that it opens what we write and computes the same; else our own names, which only we open.
"""

import errno
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError
from torch import Tensor
from torch.nn import Module

from zamba_lab.checkpoints import quantised
from zamba_lab.checkpoints.binding import Binding, bind
from zamba_lab.checkpoints.config_write import write_config
from zamba_lab.checkpoints.files import CONFIG, INDEX, PROGRESS_ABOVE, SINGLE, WRAPPERS, unwrapped
from zamba_lab.checkpoints.folder import new_checkpoint
from zamba_lab.checkpoints.layouts import BY_MODEL_TYPE
from zamba_lab.checkpoints.load import TOKENIZER_HASH
from zamba_lab.config import ZambaConfig
from zamba_lab.model import Zamba
from zamba_lab.quantization import is_quantised

if TYPE_CHECKING:
    from zamba_lab.tokenizer import Tokenizer

MAX_SHARD_BYTES = 5 * 10**9


def save(model: Zamba, folder: str | Path, max_shard_bytes: int = MAX_SHARD_BYTES) -> Path:
    """Write config.json, the weights and, if the model has one, the tokenizer into a folder; returns the folder.

    Everything is written into a hidden folder inside first, whose renaming is the moment at which the new checkpoint
    counts: killed before, the old one is as it was; killed after, the new one is whole in `.saved`, and the next save puts
    it in place. Savers into one folder take turns. Other files in the folder stay.

    Args:
        model: one wrapped by torch.compile or DistributedDataParallel is saved as if it were not. A quantised one is saved
            under our own names, which only `zl.load` reads.
        max_shard_bytes: weights are split into files of about this size, with an index; a parameter is never split.

    Raises ValueError if the model has no weights (meta device), or max_shard_bytes is below 1, and OSError, saying how much
    room is needed, if the files cannot be written. What was there before stays as it was.
    """
    model = _unwrapped_model(model)
    if max_shard_bytes < 1:
        raise ValueError(f"max_shard_bytes must be 1 or more: got {max_shard_bytes}")
    if any(p.is_meta for p in model.parameters()):
        raise ValueError("a model on the meta device has no weights to save")
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"a checkpoint is saved into a folder: {str(folder)!r} is a file")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with new_checkpoint(folder) as staged:
            write(model, staged, max_shard_bytes)
    except (OSError, SafetensorError) as error:
        size = sum(p.nbytes for p in model.parameters())
        number = getattr(error, "errno", None) or errno.EIO
        raise OSError(
            number,
            f"the model could not be saved into {str(folder)!r} ({getattr(error, 'strerror', None) or error}): "
            f"it needs {size:,} bytes, and the disk has {_free(folder)} free. What was there before is as it was",
        ) from error
    return folder


def _unwrapped_model(model: Module) -> Zamba:
    """The model inside what torch.compile or DistributedDataParallel has put around it."""
    while not isinstance(model, Zamba):
        inner = next((getattr(model, name) for name in WRAPPERS if isinstance(getattr(model, name, None), Module)), None)
        if inner is None:
            raise ValueError(f"save takes a Zamba: got {type(model).__name__}")
        model = inner
    return model


def _free(folder: Path) -> str:
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return f"{shutil.disk_usage(existing).free:,}"


def write(model: Zamba, folder: Path, max_shard_bytes: int) -> None:
    """The files themselves, into an empty folder."""
    from safetensors.torch import save_file
    from tqdm import tqdm

    config, parameters = model.config, {unwrapped(name): parameter for name, parameter in model.named_parameters()}
    raw = write_config(config, dtype=str(model.final_norm.weight.dtype).removeprefix("torch."))
    full = not is_quantised(model)
    raw |= {} if full else quantised.settings(model)
    layout = next(iter(BY_MODEL_TYPE[raw["model_type"]].values()))
    shards = list(_shards(bind(layout, config, parameters), parameters, max_shard_bytes)) if full else []
    tokenizer_hash = model.tokenizer.pieces_hash if model.tokenizer is not None else getattr(model, "tokenizer_hash", None)
    metadata = {"format": "pt"} | ({TOKENIZER_HASH: tokenizer_hash} if tokenizer_hash else {})
    file_of, total, size = {}, 0, sum(p.nbytes for p in parameters.values())
    for n, shard in enumerate(tqdm(shards, desc="saving", disable=size < PROGRESS_ABOVE), start=1):
        name = SINGLE if len(shards) == 1 else f"model-{n:05d}-of-{len(shards):05d}.safetensors"
        tensors = dict(pair for binding in shard for pair in _stored(binding, parameters, config))
        save_file(tensors, folder / name, metadata=metadata)
        file_of |= dict.fromkeys(tensors, name)
        total += sum(t.nbytes for t in tensors.values())
    if not full:
        save_file(quantised.stored_tensors(model), folder / SINGLE, metadata=metadata)
    if len(shards) > 1:
        _write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": file_of})
    _write_json(folder / CONFIG, raw)
    for path in folder.glob("*.safetensors"):
        shutil.copymode(folder / CONFIG, path)  # the writer makes its files private
    if model.tokenizer is not None:
        write_tokenizer(model.tokenizer, folder, config.max_context)


def write_tokenizer(tokenizer: "Tokenizer", folder: Path, max_context: int) -> None:
    """The tokenizer's file, and beside it what lay there when it was read, so that other readers find the same.

    For one that had no tokenizer_config.json beside it, what transformers needs to find the ids of `Tokenizer.encode` is written:
    the special tokens, and that the start token is added and no other.
    """
    file = tokenizer.save(folder)
    companions = getattr(tokenizer, "companions", {})
    for name, content in companions.items():
        (folder / name).write_bytes(content)
    if "tokenizer_config.json" in companions:
        return
    special = {"bos": tokenizer.bos_id, "eos": tokenizer.eos_id, "pad": tokenizer.pad_id}
    settings = {f"{kind}_token": tokenizer.pieces([i])[0] for kind, i in special.items() if i is not None}
    settings["add_bos_token"] = tokenizer.bos_id is not None
    # Not LlamaTokenizer: its conversion of a tokenizer.model loses runs of spaces, the general one keeps them.
    general = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": max_context, "clean_up_tokenization_spaces": False}
    _write_json(folder / "tokenizer_config.json", general | settings)
    if file.suffix == ".json":
        raw = json.loads(file.read_text(encoding="utf-8"))
        raw["post_processor"] = None if tokenizer.bos_id is None else _start_token(settings["bos_token"], tokenizer.bos_id)
        file.write_text(json.dumps(raw, ensure_ascii=False), encoding="utf-8")


def _start_token(name: str, number: int) -> dict:
    """The part of a tokenizer.json that puts a token before every text."""
    start = {"SpecialToken": {"id": name, "type_id": 0}}
    texts = [{"Sequence": {"id": which, "type_id": kind}} for kind, which in enumerate("AB")]
    return {
        "type": "TemplateProcessing",
        "single": [start, texts[0]],
        "pair": [start, *texts],
        "special_tokens": {name: {"id": name, "ids": [number], "tokens": [name]}},
    }


def _shards(bindings: list[Binding], parameters: dict[str, Tensor], most: int) -> Iterator[list[Binding]]:
    """The bindings in order, cut where a file would grow over `most` bytes."""
    shard, shard_size = [], 0
    for binding in bindings:
        size = sum(parameters[name].nbytes for name in binding.ours)
        if shard and shard_size + size > most:
            yield shard
            shard, shard_size = [], 0
        shard.append(binding)
        shard_size += size
    yield shard


def _stored(binding: Binding, parameters: dict[str, Tensor], config: ZambaConfig) -> Iterator[tuple[str, Tensor]]:
    ours = [parameters[name].detach().cpu() for name in binding.ours]
    for (name, *_), tensor in zip(binding.stored, binding.transform.to_stored(ours, config)):
        yield name, tensor.contiguous()


def _write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
