"""Files of `torch.save` that hold tensors by name. They are checked before torch opens them.

A pickle is a program. Here only the instructions that describe tensors are let through, and what those describe must lie
in the file: a stride of 0, a compressed entry or an instruction that allocates can make gigabytes of a few bytes.
"""

import io
import math
import pickle
import pickletools
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from zamba_lab.checkpoints.json_values import MAX_DESCRIPTION

PICKLED_SUFFIXES = (".bin", ".pt", ".pth")
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
NOT_TENSORS = "it holds something else than tensors by their names"
# The instructions of protocol 2, which torch writes, that allocate no more than they read.
_INSTRUCTIONS = (
    "PROTO STOP MARK EMPTY_DICT EMPTY_TUPLE EMPTY_LIST TUPLE TUPLE1 TUPLE2 TUPLE3 GLOBAL REDUCE BUILD SETITEM SETITEMS "
    "APPEND APPENDS BINUNICODE BININT BININT1 BININT2 LONG1 BINFLOAT NEWTRUE NEWFALSE NONE BINPERSID BINPUT LONG_BINPUT "
    "BINGET LONG_BINGET"
)
INSTRUCTIONS = frozenset(_INSTRUCTIONS.split())


@dataclass(frozen=True)
class _Storage:
    n_numbers: int


class _Described(dict):
    """Stands for any dict in a description; what torch sets on one besides is dropped."""

    def __setstate__(self, state) -> None:
        pass


class _Description(pickle.Unpickler):
    """What a pickle says of its tensors, with nothing allocated. UnpicklingError on anything that is no tensor."""

    def __init__(self, content: bytes, n_bytes: int):
        super().__init__(io.BytesIO(content))
        self._n_bytes, self._stored = n_bytes, {}

    def find_class(self, module: str, name: str):
        if module == "torch" and name.endswith("Storage"):
            return name
        known = {
            "collections.OrderedDict": _Described,
            "torch._utils._rebuild_tensor_v2": _check_tensor,
            "torch._utils._rebuild_parameter": lambda tensor, *rest: tensor,
        }
        if f"{module}.{name}" not in known:
            raise pickle.UnpicklingError(f"{NOT_TENSORS}: {module}.{name}")
        return known[f"{module}.{name}"]

    def persistent_load(self, pid: tuple) -> _Storage:
        self._stored[pid[2]] = int(pid[4])
        if sum(self._stored.values()) > self._n_bytes:
            raise pickle.UnpicklingError(f"it describes more numbers than its {self._n_bytes:,} bytes can hold")
        return _Storage(int(pid[4]))


def _check_tensor(storage: _Storage, offset: int, shape: tuple, stride: tuple, *rest) -> bool:
    end = offset + 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    inside = offset >= 0 and all(n >= 0 for n in shape) and all(step >= 0 for step in stride)
    if not inside or (math.prod(shape) and max(end, math.prod(shape)) > storage.n_numbers):
        raise pickle.UnpicklingError(
            f"a tensor of shape {tuple(shape)!r:.80} has more numbers than the {storage.n_numbers} that are stored"
        )
    return True


def _describe(file: BinaryIO, n_bytes: int) -> object:
    """What the next pickle of a file holds; True stands for a tensor. n_bytes: of the whole file."""
    start, before, tuples = file.tell(), "", set()
    for instruction, argument, position in pickletools.genops(file):
        name = instruction.name
        if name.endswith("BINPUT") and before.startswith("TUPLE"):
            tuples.add(argument)
        grows = name.endswith("BINPUT") and argument > n_bytes  # the memory of earlier values is as long as its last number
        nests = name.endswith("BINGET") and argument in tuples  # tuples of one tuple take for ever to hash
        if name not in INSTRUCTIONS or grows or nests:
            raise pickle.UnpicklingError(f"{NOT_TENSORS}: the instruction {name}")
        if position - start > MAX_DESCRIPTION:
            raise pickle.UnpicklingError(f"its description is over the bound of {MAX_DESCRIPTION:,} bytes")
        before = name
    end = file.tell()
    file.seek(start)
    return _Description(file.read(end - start), n_bytes).load()


def check(path: Path) -> None:
    """Raise an error unless a file describes tensors by name and stores every number of them."""
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if any(entry.compress_type for entry in entries) or sum(entry.file_size for entry in entries) > size:
                raise zipfile.BadZipFile("its entries are compressed or overlap")
            content = next(entry for entry in entries if entry.filename.endswith("/data.pkl"))
            if content.file_size > MAX_DESCRIPTION:
                raise ValueError(f"its description of {content.file_size:,} bytes is over the bound of {MAX_DESCRIPTION:,}")
            tensors = _describe(io.BytesIO(archive.read(content)), size)
    else:
        with path.open("rb") as file:
            *_, tensors = (_describe(file, size) for _ in range(4))  # after a magic number, a version and the system's sizes
    if not isinstance(tensors, dict) or not all(isinstance(name, str) for name in tensors):
        raise TypeError(NOT_TENSORS)
    for name, value in tensors.items():
        if isinstance(value, dict) and value and all(tensor is True for tensor in value.values()):
            raise TypeError(f"the tensors are wrapped in a dict, under the key {name!r}: save that entry alone")
    if others := [name for name, value in tensors.items() if value is not True]:
        raise TypeError(f"{NOT_TENSORS}: {others[:3]}")


class Pickled:
    """A file of `torch.save` that holds a dict of tensors, with the methods of an open safetensors file."""

    def __init__(self, path: Path):
        check(path)
        self._tensors = torch.load(path, map_location="cpu", mmap=zipfile.is_zipfile(path), weights_only=True)

    def keys(self) -> list[str]:
        return list(self._tensors)

    def metadata(self) -> dict[str, str]:
        return {}

    def get_tensor(self, name: str) -> Tensor:
        return self._tensors[name]

    def get_slice(self, name: str) -> "Slice":
        tensor = self._tensors[name]
        return Slice(tuple(tensor.shape), next((word for word, dtype in DTYPES.items() if dtype == tensor.dtype), str(tensor.dtype)))


@dataclass(frozen=True)
class Slice:
    """What there is to know of a tensor without reading it."""

    shape: tuple[int, ...]
    dtype: str

    def get_shape(self) -> tuple[int, ...]:
        return self.shape

    def get_dtype(self) -> str:
        return self.dtype
