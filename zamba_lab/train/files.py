"""The checkpoint files of a run: written whole or not at all, the newest few kept, and a spoilt one known as such.

    runs/x/checkpoint-000000250-5e884898da280471.pt       after 250 steps; the beginning of the SHA-256 of what is inside

The hash stands in the name, so that one rename puts both in place: a kill at any moment leaves a whole file, or a `.part` that
the next start removes.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

NAME = re.compile(r"checkpoint-(\d+)-([0-9a-f]{16})\.pt")
SPOILT = "spoilt-"  # put before the name of a file that is not what it was


class SpoiltCheckpoint(ValueError):
    """The content of a checkpoint is not what was written."""


def checkpoints(folder: str | Path) -> list[tuple[int, Path]]:
    """(step, file) of each checkpoint of a run, the newest last."""
    found = [(NAME.fullmatch(file.name), file) for file in Path(folder).glob("checkpoint-*.pt")]
    return sorted((int(match[1]), file) for match, file in found if match)


def write(folder: Path, step: int, content: Mapping[str, Any], keep: int) -> Path:
    """Write a checkpoint, and then remove all but the `keep` newest.

    Raises OSError, saying how much room is needed, if it cannot be written; what was there stays, and nothing else does.
    """
    part = folder / "checkpoint.part"
    out = None
    try:
        with open(part, "wb") as file:
            torch.save(content, out := _Hashed(file))
            if out.error:
                raise out.error
            file.flush()
            os.fsync(file.fileno())
        done = folder / f"checkpoint-{step:09d}-{out.sha.hexdigest()[:16]}.pt"
        os.replace(part, done)
    except OSError as error:
        _forget(part)
        raise OSError(error.errno, _no_room(folder, step, out, error)) from error
    except BaseException:
        _forget(part)
        raise
    _settle(folder)
    for _, old in checkpoints(folder)[:-keep]:
        old.unlink(missing_ok=True)
    return done


def read(file: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU. Raises SpoiltCheckpoint if its hash is not the one in its name."""
    wanted = NAME.fullmatch(file.name)[2]
    with open(file, "rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()[:16]
    if found != wanted:
        raise SpoiltCheckpoint(
            f"{file.name} is spoilt: it holds {file.stat().st_size} bytes of hash {found}, written were bytes of hash {wanted}"
        )
    return torch.load(file, map_location="cpu", weights_only=True)


def last_good(folder: Path, say: Callable[[str], object]) -> dict[str, Any] | None:
    """The content of the newest checkpoint that is what was written; None if there is none at all.

    Each spoilt one before it is reported by `say` and renamed. Raises SpoiltCheckpoint if all are.
    """
    known = checkpoints(folder)
    spoilt = []
    for _, file in reversed(known):
        try:
            found = read(file)
        except SpoiltCheckpoint as error:
            spoilt.append(str(error))
            continue
        for reason in spoilt:
            say(f"{reason}. The run goes on from the one before, {file.name}")
            (folder / reason.split(" ")[0]).rename(folder / (SPOILT + reason.split(" ")[0]))
        return found
    if spoilt:
        raise SpoiltCheckpoint(f"no checkpoint in {str(folder)!r} can be used: {'; '.join(spoilt)}")
    return None


def at_step(folder: str | Path, step: int | None) -> dict[str, Any]:
    """The content of a run's checkpoint after `step` steps, or its newest. Raises ValueError if there is none such."""
    known = dict(checkpoints(folder))
    if not known or (step is not None and step not in known):
        raise ValueError(
            f"{str(folder)!r} must hold a checkpoint{'' if step is None else f' of step {step}'}: it has "
            f"{f'those of steps {sorted(known)}' if known else 'none'}"
        )
    return read(known[max(known) if step is None else step])


def _no_room(folder: Path, step: int, out: _Hashed | None, error: OSError) -> str:
    size = f"{out.size:,} bytes" if out else "a file"
    kept = [file.name for _, file in checkpoints(folder)]
    return (
        f"the checkpoint of step {step} could not be written ({error.strerror}): it needs {size} in {str(folder)!r}, whose "
        f"disk has {shutil.disk_usage(folder).free:,} bytes free. Nothing is lost before "
        f"{kept[-1] if kept else 'the first step'}: make room, and the same call goes on from there"
    )


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)


def _settle(folder: Path) -> None:
    """Have the rename itself on the disk, where a system can do so."""
    if hasattr(os, "O_DIRECTORY"):
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


class _Hashed:
    """A file that hashes and counts what goes into it.

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
        """torch asks for it; `write` above does it, where an error can be told."""
