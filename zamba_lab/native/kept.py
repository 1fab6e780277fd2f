"""The folder in which a compiled library is kept: it holds code that will run, so it must be this user's alone."""

import os
import shutil
import stat
import sys
import time
from pathlib import Path

BUILDING = "building-"  # how the name of a folder begins in which a build is under way


class NotPrivate(OSError):
    """A folder or a file of the cache that somebody else could have written."""


def cache_folder() -> Path:
    """Where libraries are kept: a folder of the user's cache folder, or of what ZAMBA_LAB_CACHE names. OSError if there is no home."""
    home = {"darwin": "~/Library/Caches"}.get(sys.platform, os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    try:
        return Path(os.environ.get("ZAMBA_LAB_CACHE") or f"{home}/zamba_lab").expanduser() / "native"
    except RuntimeError as error:
        raise OSError(f"there is no home folder: {error}") from error


def private_folder(folder: Path) -> Path:
    """The folder, made if it is not there. Raises NotPrivate if it is a link or anybody else may write it, OSError if it cannot be made."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    check_private(folder, stat.S_ISDIR)
    return folder


def check_private(path: Path, right_kind) -> None:
    """Raise NotPrivate unless this is no link, belongs to this user, and only this user may write it."""
    info = path.lstat()
    if not right_kind(info.st_mode):
        raise NotPrivate(f"{path} is a link, or not what belongs there")
    if info.st_uid != os.geteuid() or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise NotPrivate(f"{path} belongs to another user, or others may write it (mode {stat.S_IMODE(info.st_mode):o}); remove it")


def remove_stale(folder: Path, seconds: float) -> None:
    """Remove what builds that were killed left in a folder, once it is so old."""
    for left in folder.glob(f"{BUILDING}*"):
        if time.time() - left.lstat().st_mtime > seconds:
            shutil.rmtree(left, ignore_errors=True)
