"""A file is the old one or the new one, whole, whatever stops the writer."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from zamba_lab.writing import atomic_file, write

KILLED = """
import os, signal, sys
from pathlib import Path
from zamba_lab.writing import atomic_file

with atomic_file(Path(sys.argv[1])) as out:
    out.write(b"new" * 1000)
    out.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_file_has_its_name_when_it_is_complete(tmp_path):
    file = tmp_path / "a"
    with atomic_file(file) as out:
        out.write(b"new")
        assert not file.exists()
    assert file.read_bytes() == b"new" and list(tmp_path.iterdir()) == [file]
    write(file, b"newer")
    assert file.read_bytes() == b"newer" and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, error):
    file = tmp_path / "a"
    write(file, b"old")
    with pytest.raises(error), atomic_file(file) as out:
        out.write(b"new")
        raise error
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of this kind")
@pytest.mark.parametrize("room", [0, 1000])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, room):
    import resource

    file, before = tmp_path / "a", resource.getrlimit(resource.RLIMIT_FSIZE)
    write(file, b"old")
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write(file, b"new" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process by a signal")
def test_a_writer_that_is_killed_leaves_the_old_file_and_a_part_that_is_none(tmp_path):
    file = tmp_path / "a"
    write(file, b"old")
    root = os.pathsep.join([str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run([sys.executable, "-c", KILLED, file], env={**os.environ, "PYTHONPATH": root})
    assert done.returncode == -signal.SIGKILL
    assert file.read_bytes() == b"old" and [one.suffix for one in tmp_path.iterdir() if one != file] == [".part"]
