"""Files that are complete or absent, whenever the writer is stopped and however full the disk is; and locks.

Checkpoints of a run are not written by these: their names hold the hash of what is inside (train/files.py), and a saved model
is several files together (checkpoints/save.py).
"""

import errno
import os
import warnings
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


class NoLocks(OSError):
    """The file system of a lock file has no locks."""


@contextmanager
def locked(file: Path, seconds: float = 0.0) -> Iterator[None]:
    """Hold a lock file; the lock ends with this process, however it ends, and the file stays.

    Raises TimeoutError if another process has held it for so many seconds, and NoLocks where the file system has none. (filelock
    then makes do with the file's existence, which outlives a killed process: others would wait for ever.)
    """
    from filelock import FileLock, SoftFileLock, Timeout

    lock, supported = FileLock(file), True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the way out that is refused next
        try:
            lock.acquire(timeout=0)
        except Timeout:
            pass  # the file, of another process or of the way out: which, is asked next
        except NotImplementedError:  # an older filelock
            supported = False
    if not supported or isinstance(lock, SoftFileLock):
        lock.release()
        refusal = "this file system has no locks to keep processes out of each other's way: choose a folder on another"
        raise NoLocks(errno.ENOSYS, refusal, str(file))
    try:
        if not lock.is_locked:
            lock.acquire(timeout=seconds)
    except Timeout as error:
        raise TimeoutError(errno.ETIMEDOUT, f"another process holds this lock, after {seconds:g} seconds still", str(file)) from error
    try:
        yield
    finally:
        lock.release()
