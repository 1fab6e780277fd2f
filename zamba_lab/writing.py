"""Files that are there whole or not at all, whenever the writer is stopped and however full the disk is.

Checkpoints of a run are not written by these: their names hold the hash of what is inside (train/files.py), and a saved model
is many files at once (checkpoints/save.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def whole(file: Path) -> Iterator[BinaryIO]:
    """A file to write to that gets its name when it is complete, and is on the disk by then.

    Raises OSError if there is no room; what had the name stays, and nothing else does. The writer's number is part of the name
    until then, `NAME.1234.part`: one that was killed may still be at it when the next begins. Only a kill leaves such a file.
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
    """Write a file by `whole`."""
    with whole(file) as out:
        out.write(content)
