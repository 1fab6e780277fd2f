"""Files that are complete or absent, whenever the writer is stopped and however full the disk is.

Checkpoints of a run are not written by these: their names hold the hash of what is inside (train/files.py), and a saved model
is several files together (checkpoints/save.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_file(file: Path) -> Iterator[BinaryIO]:
    """A file to write to that gets its name when it is complete, and is on the disk by then.

    Raises OSError if there is no room; an old file of that name stays, and nothing else does. Until then the name is
    `NAME.1234.part`, with the number of the process, so two writers do not share one. Only a kill leaves such a file.
    """
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        os.replace(part, file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write(file: Path, content: bytes) -> None:
    """Write a file by `atomic_file`."""
    with atomic_file(file) as out:
        out.write(content)
