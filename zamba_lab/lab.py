"""A folder of notebooks of one's own, and JupyterLab on it."""

import filecmp
import os
import shutil
import subprocess
import sys
from pathlib import Path

from zamba_lab.resources import folder

FIRST_NOTEBOOK = "00_start_here.ipynb"


def copy_notebooks(target: str | Path) -> tuple[list[Path], list[Path]]:
    """Copy the notebooks and their pictures to a folder, which is made if it is not there.

    Returns: the files that were written or were there already, unchanged; and those that were left alone because they differ: they have
    been edited. Raises ValueError if the target is not a folder or cannot be written.
    """
    source, target = folder("notebooks"), Path(target)
    copied, kept = [], []
    try:
        for file in sorted(source.rglob("*")):
            place = target / file.relative_to(source)
            if file.is_dir() or any(part.startswith((".", "__")) for part in place.relative_to(target).parts):
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.exists() and not filecmp.cmp(file, place, shallow=False):
                kept.append(place)
                continue
            shutil.copyfile(file, place)
            copied.append(place)
    except OSError as error:
        raise ValueError(f"the notebooks cannot be copied to {str(target)!r}: {error}") from error
    return copied, kept


def open_jupyterlab(target: str | Path, browser: bool = True) -> int:
    """Run JupyterLab on the first notebook of a folder until it is stopped; returns its exit status."""
    command = [sys.executable, "-m", "jupyterlab", "--ip=127.0.0.1", f"--ServerApp.root_dir={Path(target).resolve()}"]
    command.append(f"--LabApp.default_url=/lab/tree/{FIRST_NOTEBOOK}")
    command += [] if browser else ["--no-browser"]
    command += ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # it refuses to start as root unless told
    return subprocess.call(command)
