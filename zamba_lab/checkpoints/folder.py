"""One checkpoint folder, several processes: savers take turns, and a reader gets one model whole or an error.

    .saving-*   a new checkpoint that is being written; its saver holds a lock on it, so that one without is a dead saver's
    .saved      a new checkpoint that is whole and whose files are being put in place, under a lock on the folder

The locks are on the folders themselves: taking one writes nothing. Readers change nothing at all. They compare what the
files were before and after, and read again under a shared lock if a save came in between. No link is followed to write.
"""

import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TypeVar

from zamba_lab.checkpoints.errors import CheckpointError
from zamba_lab.checkpoints.files import COMPANIONS, TOKENIZERS

SAVING, SAVED = ".saving-", ".saved"
MOVING = ".moving"  # what older versions of this package left of a save that was stopped
WEIGHTS_WRITTEN = re.compile(r"config\.json|model\.safetensors(\.index\.json)?|model-\d{5}-of-\d{5}\.safetensors")
READ = re.compile(r".*\.(json|jinja|safetensors|bin|pt|pth|model)")  # the files that a reader may open
SAVER_WAITS, READER_WAITS = 600.0, 20.0  # seconds for the lock that another process holds
ATTEMPTS = 4  # of a reader, all but the first under a lock

Result = TypeVar("Result")


@contextmanager
def locked(folder: Path, shared: bool = False, wait: float = SAVER_WAITS) -> Iterator[bool]:
    """Hold a lock on a folder; yields False where the system has no such locks, and True otherwise.

    Raises CheckpointError if another process holds it for longer than `wait` seconds.
    """
    try:
        import fcntl

        number = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield False
        return
    try:
        is_held, until = None, time.monotonic() + wait
        while is_held is None:
            try:
                fcntl.flock(number, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                is_held = True
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise CheckpointError(f"another process has been saving into {str(folder)!r} for {wait:g} s: try again later") from None
                time.sleep(0.005)
            except OSError:  # a file system without locks
                is_held = False
        yield is_held
    finally:
        os.close(number)


# --- reading ------------------------------------------------------------------------------------------------------


def read_whole(folder: Path, read: Callable[[], Result]) -> Result:
    """The result of `read`, while whose call no save changed the folder. Nothing on the disk is changed.

    Raises what `read` raises, and CheckpointError if a save into the folder was stopped half-way or never pauses.
    """
    for attempt in range(ATTEMPTS):
        with locked(folder, shared=True, wait=READER_WAITS) if attempt else nullcontext(False) as alone:
            before, result, error = _state(folder), None, None
            if unfinished := stopped_save(folder):
                error = CheckpointError(unfinished)
                if alone:  # its saver is dead
                    raise error
            else:
                try:
                    result = read()
                except (ValueError, ModuleNotFoundError) as caught:
                    error = caught
                except OSError as caught:
                    error = CheckpointError(f"{str(folder)!r} cannot be read ({caught})")
                if _state(folder) == before:
                    if error is not None:
                        raise error
                    return result
        if not alone:
            time.sleep(0.02 * attempt)
    raise error or CheckpointError(f"{str(folder)!r} was written to each of the {ATTEMPTS} times it was read: load when that is done")


def stopped_save(folder: Path) -> str:
    """A sentence on a save into the folder that had begun to put its files in place; empty if there is none.

    A link of such a name is none: no save leaves one, and nobody follows it.
    """
    if _is_folder(folder / SAVED):
        return (
            f"a save into {str(folder)!r} was stopped half-way. The new model is whole in {str(folder / SAVED)!r}: "
            "load that one, or save into the folder again, which clears it up"
        )
    if _is_folder(folder / MOVING):
        return f"a save into {str(folder)!r} was stopped half-way, files of it are in {MOVING}: save into the folder again"
    return ""


def planted_links(folder: Path) -> list[str]:
    """The names a save would use that are links or files, which no save leaves."""
    return [name for name in (SAVED, MOVING) if os.path.lexists(folder / name) and not _is_folder(folder / name)]


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _state(folder: Path) -> dict[str, tuple[int, ...] | None]:
    """What tells each file that a reader may open from one written in its place."""
    state = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if READ.fullmatch(entry.name):
                try:
                    status = entry.stat()
                    state[entry.name] = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
                except OSError:
                    state[entry.name] = None
    return state


# --- saving -------------------------------------------------------------------------------------------------------


@contextmanager
def new_checkpoint(folder: Path) -> Iterator[Path]:
    """An empty folder to write a checkpoint into; at the end its files take the place of those in `folder`.

    Left by an error or a kill before that, the old checkpoint is as it was; a kill during it leaves `.saved`, which the
    next save puts in place first. Raises CheckpointError where a link or a file has that name.
    """
    with ExitStack() as stack:
        with locked(folder):
            _finish(folder)
            _remove_dead(folder)
            staged = Path(tempfile.mkdtemp(prefix=SAVING, dir=folder))
            stack.callback(shutil.rmtree, staged, ignore_errors=True)
            stack.enter_context(locked(staged))
        yield staged
        with locked(folder):
            _finish(folder)
            os.rename(staged, folder / SAVED)  # from here on the new one counts
            _finish(folder)


def _finish(folder: Path) -> None:
    """Put the files of a save in place that had written them all; each step can be repeated. Mostly there is none."""
    if links := planted_links(folder):
        raise CheckpointError(f"{str(folder / links[0])!r} is a link or a file, which no save leaves: see what it is and remove it")
    for source in (folder / SAVED, folder / MOVING):
        if _is_folder(source):
            with _entered(source) as (descriptor, prefix):
                _put_in_place(source, descriptor, prefix, folder)
            done = folder / f"{SAVING}{os.getpid()}-done"
            os.rename(source, done)
            shutil.rmtree(done)


LINK = ".link"  # a second name of a file on its way


@contextmanager
def _entered(source: Path) -> Iterator[tuple[int | None, str]]:
    """A descriptor of a folder that is no link, and what to put before names inside it. No link can take its place then.

    Where the system has no functions on descriptors, there is none and the prefix is the path.
    """
    if os.link not in os.supports_dir_fd:
        yield None, f"{source}{os.sep}"
        return
    descriptor = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor, ""
    finally:
        os.close(descriptor)


def _put_in_place(source: Path, descriptor: int | None, prefix: str, folder: Path) -> None:
    """Give every file of `source` a name in `folder`, too, each in one step; `source` stays whole. Old files go first."""
    new = sorted(name for name in os.listdir(source if descriptor is None else descriptor) if name != LINK)
    for name in new:
        if not _written(name) or not stat.S_ISREG(os.stat(prefix + name, dir_fd=descriptor, follow_symlinks=False).st_mode):
            raise CheckpointError(f"{str(source)!r} holds {name!r}, which no save writes: see what it is and remove it")
    has_tokenizer = any(name in TOKENIZERS for name in new)
    for path in folder.iterdir() if source.name == SAVED else ():
        old = WEIGHTS_WRITTEN.fullmatch(path.name) or has_tokenizer and _written(path.name)
        if old and path.name not in new:
            path.unlink()
    for name in new:
        with suppress(FileNotFoundError):
            os.unlink(prefix + LINK, dir_fd=descriptor)
        try:
            os.link(prefix + name, prefix + LINK, src_dir_fd=descriptor, dst_dir_fd=descriptor, follow_symlinks=False)
        except OSError:  # a file system without links
            shutil.copy2(source / name, source / LINK, follow_symlinks=False)
        os.replace(prefix + LINK, folder / name, src_dir_fd=descriptor)


def _remove_dead(folder: Path) -> None:
    """Remove what savers that were killed while writing have left."""
    for path in folder.glob(SAVING + "*"):
        if _is_folder(path):
            try:
                with locked(path, wait=0) as dead:
                    if dead:
                        shutil.rmtree(path, ignore_errors=True)
            except CheckpointError:  # its saver is alive
                continue


def _written(name: str) -> bool:
    return WEIGHTS_WRITTEN.fullmatch(name) is not None or name in (*TOKENIZERS, *COMPANIONS)
