"""The weight files of a checkpoint: which are read, what their headers say, and their tensors, memory-mapped.

What a small file could make a reader allocate is bounded before it is allocated: config.json, an index and the header or
pickle that describes tensors have at most MAX_DESCRIPTION bytes, and a tensor no more numbers than its file stores.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from zamba_lab.checkpoints.errors import CheckpointError
from zamba_lab.checkpoints.json_values import MAX_DESCRIPTION, read_key, read_object
from zamba_lab.checkpoints.pickled import DTYPES, PICKLED_SUFFIXES, Pickled

CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
PICKLED, PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
WEIGHTS = (SINGLE, INDEX, PICKLED, PICKLED_INDEX)  # in transformers' order: the first that is there is read
TOKENIZERS = ("tokenizer.json", "tokenizer.model")  # the first that is there is the model's
# What else lies beside a tokenizer, for other readers: the special tokens, whether <s> is added, the chat template.
COMPANIONS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja", "chat_template.json")
PROGRESS_ABOVE = 10**9  # bytes worth a progress bar
# What tools put into parameters' names, and which. None of our layouts has such a part in a name.
WRAPPERS = {
    "_orig_mod": "torch.compile",
    "module": "DataParallel or DistributedDataParallel",
    "_fsdp_wrapped_module": "FullyShardedDataParallel",
    "_checkpoint_wrapped_module": "activation checkpointing",
}


@dataclass(frozen=True)
class Header:
    """What a file's header says about one tensor. dtype: the format's word; a key of DTYPES if we can use it."""

    shape: tuple[int, ...]
    dtype: str


class Weights:
    """Tensors of one or several files by name; a context manager.

    `headers` are read at the start. `read` maps a tensor into memory without copying or touching it: pages are read when
    they are used. `peek` does so through a mapping of its own, which `forget` gives up with all pages that were read.
    Tensors stay valid afterwards. Names are without WRAPPERS; `notes` are sentences on what was left out or put in.
    `metadata` joins that of all files.
    """

    def __init__(self, files: dict[Path, set[str] | None]):
        """files: each with the names it must hold, no more and no fewer, or None for whatever it holds.

        Raises CheckpointError if a file cannot be opened, or holds other tensors than it should.
        """
        self.headers: dict[str, Header] = {}
        self.notes: list[str] = []
        self.metadata: dict[str, str] = {}
        self._stored: dict[str, tuple[Path, str]] = {}
        self._lasting: dict[Path, object] = {}
        self._passing: dict[Path, object] = {}
        wrappers: set[str] = set()
        for path, expected in files.items():
            opened = open_file(path)
            stored_names = set(opened.keys())
            if expected is not None and stored_names != expected:
                index = PICKLED_INDEX if path.suffix in PICKLED_SUFFIXES else INDEX
                raise CheckpointError(
                    f"{path.name} does not hold what {index} says", missing=expected - stored_names, left_over=stored_names - expected
                )
            self.metadata |= opened.metadata() or {}
            for stored_name in stored_names:
                name = unwrapped(stored_name)
                wrappers |= set(stored_name.split(".")) & WRAPPERS.keys()
                if name in self.headers:
                    raise CheckpointError(
                        f"{stored_name} and {self._stored[name][1]} differ only in what {_makers(wrappers)} puts into names"
                    )
                part = opened.get_slice(stored_name)
                self.headers[name] = Header(tuple(part.get_shape()), str(part.get_dtype()))
                self._stored[name] = path, stored_name
        if wrappers:
            self.notes.append(f"the names hold {', '.join(sorted(wrappers))}, which {_makers(wrappers)} puts in: read without")

    def read(self, name: str) -> Tensor:
        return self._from(self._lasting, name)

    def peek(self, name: str) -> Tensor:
        return self._from(self._passing, name)

    def forget(self) -> None:
        self._passing.clear()

    def put_before(self, prefix: str) -> None:
        """Put a prefix before every name: what those of a model without its head lack."""
        if not prefix:
            return
        self.notes.append(f"the names are those of a model without its head: read with {prefix!r} before them")
        self.headers = {prefix + name: header for name, header in self.headers.items()}
        self._stored = {prefix + name: place for name, place in self._stored.items()}

    def _from(self, handles: dict, name: str) -> Tensor:
        path, stored_name = self._stored[name]
        if path not in handles:
            handles[path] = open_file(path)
        return handles[path].get_tensor(stored_name)

    def nbytes(self, name: str) -> int:
        header = self.headers[name]
        return DTYPES[header.dtype].itemsize * torch.Size(header.shape).numel()

    def __enter__(self) -> "Weights":
        return self

    def __exit__(self, *error) -> None:
        self._lasting.clear()
        self._passing.clear()


def unwrapped(name: str) -> str:
    """A parameter's name without the parts that WRAPPERS put in."""
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def _makers(wrappers: set[str]) -> str:
    return " and ".join(WRAPPERS[part] for part in sorted(wrappers))


def open_file(path: Path):
    """An open weight file: keys(), get_slice(name), get_tensor(name), metadata(). CheckpointError if it is not one."""
    if not path.is_file():
        raise CheckpointError(f"the weight file {path.name} is missing: there is no file {str(path)!r}")
    pickled = path.suffix in PICKLED_SUFFIXES
    try:
        if pickled:
            return Pickled(path)
        with path.open("rb") as file:
            if MAX_DESCRIPTION < (size := int.from_bytes(file.read(8), "little")) < path.stat().st_size:
                raise ValueError(f"its header of {size:,} bytes is over the bound of {MAX_DESCRIPTION:,}")
        return safe_open(path, framework="pt")
    # A damaged pickle raises whatever its last instruction trips over: KeyError, RecursionError, BadZipFile, ...
    except Exception if pickled else (SafetensorError, OSError, RuntimeError, ValueError) as error:  # noqa: B030 - both are classes
        kind = "file of pickled tensors" if pickled else "safetensors file"
        raise CheckpointError(
            f"{str(path)!r}, {path.stat().st_size} bytes, is not a whole {kind}: truncated, or "
            f"something else ({(str(error).splitlines() or [type(error).__name__])[0]})"
        ) from error


def weight_files(folder: Path) -> dict[Path, set[str] | None]:
    """The weight files of a folder as `Weights` takes them: those that transformers would read, or a lone safetensors file."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            if name in (INDEX, PICKLED_INDEX):
                return {folder / shard: names for shard, names in read_index(folder / name).items()}
            return {folder / name: None}
    files = sorted(folder.glob("*.safetensors"))
    if len(files) == 1:
        return {files[0]: None}
    if files:
        raise CheckpointError(
            f"{str(folder)!r} holds {len(files)} safetensors files and no {INDEX} that says which to "
            f"read: {[path.name for path in files][:8]}"
        )
    names = sorted(path.name for path in folder.iterdir())
    raise CheckpointError(f"{str(folder)!r} is not a checkpoint: it holds neither {SINGLE} nor {INDEX}, but {names[:8]}")


def read_index(path: Path) -> dict[str, set[str]]:
    """The tensors of each file that an index names. File names are bare: an index cannot point out of its folder."""
    shards: dict[str, set[str]] = {}
    suffix = "bin" if path.name == PICKLED_INDEX else "safetensors"
    for name, shard in read_key(read_object(path), "weight_map", "dict").items():
        if not isinstance(shard, str) or not re.fullmatch(rf"[\w.-]{{1,200}}\.{suffix}", shard, re.ASCII):
            raise CheckpointError(f"{path.name} must name {suffix} files of its own folder: for {name[:200]!r} it names {shard!r:.220}")
        shards.setdefault(shard, set()).add(name)
    if not shards:
        raise CheckpointError(f"{path.name} names no tensors: {str(path)!r}")
    return shards
