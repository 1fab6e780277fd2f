"""The checkpoint files of a run: written atomically, the newest few kept, and a corrupt one recognised.

    runs/x/checkpoint-000000250-5e884898da280471.pt       after 250 steps; the first 16 digits of the content's SHA-256

The hash is part of the name, so that one rename puts both in place: a kill at any moment leaves a complete file, or a `.part` that
the next start removes.
"""

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

NAME = re.compile(r"checkpoint-(\d+)-([0-9a-f]{16})\.pt")
CORRUPT = "corrupt-"  # put before the name of a file whose hash is wrong


class CorruptCheckpoint(ValueError):
    """The content of a checkpoint is not what was written."""


def checkpoints(folder: str | Path) -> list[tuple[int, Path]]:
    """(step, file) of each checkpoint of a run, the newest last."""
    matches = [(NAME.fullmatch(file.name), file) for file in Path(folder).glob("checkpoint-*.pt")]
    return sorted((int(match[1]), file) for match, file in matches if match)


def write(folder: Path, step: int, content: Mapping[str, Any], keep: int) -> Path:
    """Write a checkpoint, and then remove all but the `keep` newest.

    Raises OSError, saying how much room is needed, if it cannot be written; what was there stays, and nothing else does.
    """
    part = folder / "checkpoint.part"
    out = None
    try:
        with open(part, "wb") as file:
            torch.save(content, out := _HashingFile(file))
            if out.error:
                raise out.error
            file.flush()
            os.fsync(file.fileno())
        done = folder / f"checkpoint-{step:09d}-{out.sha.hexdigest()[:16]}.pt"
        os.replace(part, done)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, _no_room(folder, step, out, error)) from error
        raise
    if hasattr(os, "O_DIRECTORY"):  # have the rename itself on the disk, where a system can do so
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
    for _, old in checkpoints(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return done


def read(file: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU. Raises CorruptCheckpoint if its hash is not the one in its name."""
    expected = NAME.fullmatch(file.name)[2]
    with open(file, "rb") as content:
        actual = hashlib.file_digest(content, "sha256").hexdigest()[:16]
    if actual != expected:
        raise CorruptCheckpoint(f"{file.name} is corrupt: its {file.stat().st_size} bytes have the hash {actual}, written was {expected}")
    return torch.load(file, map_location="cpu", weights_only=True)


def newest_valid(folder: Path, warn: Callable[[str], object]) -> dict[str, Any] | None:
    """The content of the newest checkpoint with the right hash; None if there is no checkpoint at all.

    Each corrupt one after it is reported by `warn` and renamed. Raises CorruptCheckpoint if all are.
    """
    corrupt: dict[Path, CorruptCheckpoint] = {}
    for _, file in reversed(checkpoints(folder)):
        try:
            content = read(file)
        except CorruptCheckpoint as error:
            corrupt[file] = error
            continue
        for bad, error in corrupt.items():
            warn(f"{error}. The run continues from the one before, {file.name}")
            bad.rename(folder / (CORRUPT + bad.name))
        return content
    if corrupt:
        raise CorruptCheckpoint(f"no checkpoint in {str(folder)!r} can be used: {'; '.join(map(str, corrupt.values()))}")
    return None


def at_step(folder: str | Path, step: int | None) -> dict[str, Any]:
    """The content of a run's checkpoint after `step` steps, or its newest. Raises ValueError if there is none such."""
    files = dict(checkpoints(folder))
    if not files or (step is not None and step not in files):
        raise ValueError(
            f"{str(folder)!r} must hold a checkpoint{'' if step is None else f' of step {step}'}: it has "
            f"{f'those of steps {sorted(files)}' if files else 'none'}"
        )
    return read(files[max(files) if step is None else step])


def _no_room(folder: Path, step: int, out: "_HashingFile | None", error: OSError) -> str:
    size = f"{out.size:,} bytes" if out else "a file"
    kept = [file.name for _, file in checkpoints(folder)]
    return (
        f"the checkpoint of step {step} could not be written ({error.strerror}): it needs {size} in {str(folder)!r}, whose "
        f"disk has {shutil.disk_usage(folder).free:,} bytes free. Nothing is lost before "
        f"{kept[-1] if kept else 'the first step'}: make room, and the same call continues from there"
    )


class _HashingFile:
    """A file that hashes and counts what is written to it.

    torch's writer cannot be stopped halfway, so the first error is kept and all after it only counted: so much room is needed.
    """

    def __init__(self, file: BinaryIO):
        self.file, self.sha, self.size, self.error = file, hashlib.sha256(), 0, None

    def write(self, data: bytes) -> int:
        self.size += len(data)
        if self.error is None:
            try:
                self.sha.update(data)
                self.file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def flush(self) -> None:
        """torch calls it; `write` above flushes, where an error can be raised."""
