"""The reading rule for text files, one for all of the lab: which files of a folder are text, and how bytes become text.

A folder stands for all files below it. Folders behind links are among them; each folder is read once, so a link to a folder
that is read anyway, or back to itself, adds nothing. A name that begins with a dot (.git, .env, .DS_Store, .ipynb_checkpoints)
is left out, with all below it; a file that the caller names is read whatever its name.

Bytes are UTF-8, a byte order mark at the start is dropped, and line ends stay as they are. A file that is not UTF-8 is never
repaired: a corpus drops it and counts it, an evaluation refuses it.
"""

import os
from collections import deque
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path


def text_files(folder: str | Path, pattern: str = "**/*") -> list[Path]:
    """The files below a folder whose path within it matches a pattern, sorted.

    pattern: of parts with * ? [...], separated by /; ** is any number of folders. Raises OSError if a folder cannot be read.
    """
    files, seen, waiting = [], set(), deque([Path(folder)])
    while waiting:
        for inside, folders, names in os.walk(waiting.popleft(), onerror=_raise):
            real = os.path.realpath(inside)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            # After all that is here without links: a file has its own path's name rather than a link's.
            waiting.extend(link for name in folders if (link := Path(inside, name)).is_symlink())
            files += [Path(inside, name) for name in names if not name.startswith(".")]
    parts = pattern.split("/")
    return sorted(file for file in files if _matches(file.relative_to(folder).parts, parts) and file.is_file())


def decode(content: bytes) -> str:
    """The text of a file's bytes. Raises UnicodeDecodeError, which is a ValueError, if they are not UTF-8."""
    return content.decode("utf-8-sig")


def _raise(error: OSError) -> None:
    raise error


def _matches(path: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern or not path:
        return not path and all(part == "**" for part in pattern)
    if pattern[0] == "**":
        return _matches(path, pattern[1:]) or _matches(path[1:], pattern)
    return fnmatchcase(path[0], pattern[0]) and _matches(path[1:], pattern[1:])
