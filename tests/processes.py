"""Another Python with the same package and the tests' own modules: for what forks, kills, or must start without threads."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent


# Minutes that `make test` does not have: `make test-long` runs them.
only_long = pytest.mark.skipif(os.environ.get("ZAMBA_LAB_LONG") != "1", reason="takes minutes: make test-long")


def python(*arguments: object, timeout: float = 240) -> subprocess.CompletedProcess:
    """Run to its end with these arguments: one thread, sockets on this machine only, warnings ignored."""
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    return subprocess.run(
        [sys.executable, "-W", "ignore", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )


def left_by(script: Path, folder: Path) -> Path:
    """The folder, with what a script that starts processes of its own has left there."""
    done = python(script, folder)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder
