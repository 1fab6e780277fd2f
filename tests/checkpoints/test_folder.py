"""One folder, several processes, kills, full disks, planted links: reading changes nothing, a load is one model whole."""

import contextlib
import errno
import hashlib
import io
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from variants import BASE, make_model

from zamba_lab import cli
from zamba_lab.checkpoints import CheckpointError, doctor, folder, load, load_config, parity, save
from zamba_lab.model import Zamba

OLD, NEW = BASE, replace(BASE, n_layers=4, hybrid_layers=(0, 3), rope_theta=50.0)
MARKERS = (".saved", ".moving")
HERE = Path(__file__).parents[1]


def same(one: Zamba, other: Zamba) -> bool:
    pairs = zip(one.named_parameters(), other.named_parameters(), strict=True)
    return one.config == other.config and all(a == b and torch.equal(p, q) for (a, p), (b, q) in pairs)


def tree(path: Path) -> dict[str, str]:
    """Everything under a folder: kinds, modes, links' targets, times and the hashes of files."""
    found = {}
    for entry in [path, *sorted(path.rglob("*"))]:
        status = entry.lstat()
        content = (
            os.readlink(entry) if entry.is_symlink() else hashlib.sha256(entry.read_bytes()).hexdigest() if entry.is_file() else "folder"
        )
        found[str(entry.relative_to(path))] = f"{content} {status.st_mode:o} {status.st_mtime_ns} {status.st_ino}"
    return found


def quietly(*arguments: str) -> int:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return cli.main(arguments)


READERS = {
    "load": load,
    "load_config": load_config,
    "doctor": doctor,
    "meta": lambda path: load(path, device="meta"),
    "info": lambda path: quietly("info", str(path)),
    "doctor command": lambda path: quietly("doctor", str(path)),
    "generate": lambda path: quietly("generate", str(path), "x", "-n", "1"),
    "export": lambda path: quietly("export", str(path), str(path.parent / "export")),
}


def planted(tmp_path: Path, plant: str) -> Path:
    """A folder `checkpoint` in which something lies under the names that a save uses, and a folder `victim`."""
    path = save(make_model(OLD), tmp_path / "checkpoint")
    victim = save(make_model(NEW), tmp_path / "victim")
    (victim / "README.md").write_text("mine")
    kind, _, name = plant.partition(" ")
    if kind == "link":
        (path / name).symlink_to("../victim")
    elif kind == "whole":
        save(make_model(NEW), path / name)
    elif kind == "half":
        save(make_model(NEW), path / name)
        os.rename(path / name / "config.json", path / "config.json")
    elif kind == "dangling":
        (path / name).symlink_to("../nowhere")
    return path


PLANTS = [f"{kind} {name}" for kind in ("link", "dangling", "whole", "half") for name in MARKERS] + ["link .saving-a", "nothing"]


@pytest.mark.parametrize("plant", PLANTS)
def test_reading_changes_nothing(plant, tmp_path):
    path = planted(tmp_path, plant)
    before = tree(path), tree(tmp_path / "victim")
    for name, read in READERS.items():
        with contextlib.suppress(CheckpointError):
            read(path)
        assert (tree(path), tree(tmp_path / "victim")) == before, name


def test_comparing_with_transformers_changes_nothing(tmp_path):
    pytest.importorskip("transformers")
    path = planted(tmp_path, "link .saved")
    before = tree(path), tree(tmp_path / "victim")
    parity(path)
    assert (tree(path), tree(tmp_path / "victim")) == before


@pytest.mark.parametrize("plant", PLANTS)
def test_a_reader_of_a_stopped_save_gets_the_old_model_or_what_to_do(plant, tmp_path):
    path = planted(tmp_path, plant)
    if plant.startswith(("whole", "half")):
        with pytest.raises(CheckpointError, match=r"was stopped half-way.*save into the folder again"):
            load(path)
        assert [fault["fault"] for fault in doctor(path).faults] == ["unfinished save"]
    else:
        assert same(load(path), make_model(OLD))
        assert [fault["fault"] for fault in doctor(path).faults] == ["link"] * plant.startswith(("link .saved", "link .moving", "dangling"))


def test_the_new_model_of_a_stopped_save_can_be_loaded_from_where_it_is(tmp_path):
    path = planted(tmp_path, "whole .saved")
    assert same(load(path / ".saved"), make_model(NEW))


@pytest.mark.parametrize("plant", PLANTS)
def test_saving_clears_up_what_a_save_left_and_follows_no_link(plant, tmp_path):
    path = planted(tmp_path, plant)
    victim = tree(tmp_path / "victim")
    if plant.split()[0] in ("link", "dangling") and plant.split()[1] in MARKERS:
        before = tree(path)
        with pytest.raises(CheckpointError, match="is a link or a file, which no save leaves"):
            save(make_model(NEW), path)
        assert tree(path) == before
    else:
        save(make_model(NEW), path)
        assert same(load(path), make_model(NEW))
        assert sorted(os.listdir(path)) == [*[".saving-a"] * (plant == "link .saving-a"), "config.json", "model.safetensors"]
    assert tree(tmp_path / "victim") == victim


@pytest.mark.parametrize("name", ["README.md", "../x", "sub", "linked"])
def test_a_planted_save_puts_nothing_in_place_but_what_a_save_writes(name, tmp_path):
    path = planted(tmp_path, "whole .saved")
    (path / "README.md").write_text("mine")
    if name == "sub":
        (path / ".saved" / "config.json").unlink()
        (path / ".saved" / "config.json").mkdir()
    elif name == "linked":
        (path / ".saved" / "config.json").unlink()
        (path / ".saved" / "config.json").symlink_to(tmp_path / "victim" / "config.json")
    else:
        (path / ".saved" / name.replace("../", "..")).write_text("theirs")
    before = tree(path), tree(tmp_path / "victim")
    with pytest.raises(CheckpointError, match="which no save writes"):
        save(make_model(NEW), path)
    assert (tree(path), tree(tmp_path / "victim")) == before


def test_a_folder_that_cannot_be_written_is_read(tmp_path):
    """As root nothing is forbidden, so there the modes alone are tested."""
    path = save(make_model(OLD), tmp_path / "checkpoint")
    modes = {entry: entry.stat().st_mode for entry in [path, *path.iterdir()]}
    try:
        for entry in modes:
            entry.chmod(0o555 if entry.is_dir() else 0o444)
        assert same(load(path), make_model(OLD)) and doctor(path).ok
        if os.geteuid():
            with pytest.raises(OSError, match="could not be saved"):
                save(make_model(NEW), path)
    finally:
        for entry, mode in modes.items():
            entry.chmod(mode)


# --- kills --------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Not an error: nothing may catch it, as nothing catches a kill."""


@pytest.mark.parametrize("step", range(16))
@pytest.mark.parametrize("shards", [10**9, 5000])
def test_killed_at_any_step_the_old_or_the_new_checkpoint_is_whole(step, shards, tmp_path, monkeypatch):
    save(make_model(OLD), tmp_path, max_shard_bytes=10**9 if shards == 5000 else 5000)
    steps = iter(range(1000))

    def dying(function):
        def step_or_die(*args, **options):
            if next(steps) == step:
                raise Killed
            return function(*args, **options)

        return step_or_die

    with monkeypatch.context() as patch:
        for name in ("replace", "rename", "link"):
            patch.setattr(folder.os, name, dying(getattr(os, name)))
        patch.setattr(Path, "unlink", dying(Path.unlink))
        patch.setattr(Path, "write_text", dying(Path.write_text))
        patch.setattr(folder.shutil, "rmtree", dying(folder.shutil.rmtree))
        try:
            save(make_model(NEW), tmp_path, max_shard_bytes=shards)
            finished = True
        except Killed:
            finished = False
    before = tree(tmp_path)
    try:
        found = load(tmp_path)
        assert same(found, make_model(NEW)) or not finished and same(found, make_model(OLD))
    except CheckpointError as error:
        assert not finished and "was stopped half-way" in str(error)
        assert same(load(tmp_path / ".saved"), make_model(NEW))
    assert tree(tmp_path) == before
    save(make_model(NEW), tmp_path)  # and the next save clears up
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]
    assert same(load(tmp_path), make_model(NEW))


SAVER = """
import sys; from variants import *; from zamba_lab.checkpoints import save
models = [make_model(BASE, seed) for seed in map(int, sys.argv[2].split(","))]
save(models[0], sys.argv[1]); print("ready", flush=True)
while True:
    for model in models: save(model, sys.argv[1], max_shard_bytes=3000); print("saved", flush=True)
"""
READER = """
import sys, time; from variants import *; from zamba_lab.checkpoints import CheckpointError, load
import torch
models = [make_model(BASE, seed).state_dict() for seed in map(int, sys.argv[2].split(","))]
print("ready", flush=True)
until, counts = time.monotonic() + float(sys.argv[3]), {"whole": 0, "mixed": 0, "refused": 0}
while time.monotonic() < until:
    try: found = load(sys.argv[1]).state_dict()
    except CheckpointError: counts["refused"] += 1
    else:
        whole = any(all(torch.equal(found[name], t) for name, t in model.items()) for model in models)
        counts["whole" if whole else "mixed"] += 1
print(*counts.values(), flush=True)
"""


def process(code: str, *arguments: str) -> subprocess.Popen:
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    if child.stdout.readline() != b"ready\n":
        raise AssertionError(child.communicate()[1].decode())
    return child


def ended(child: subprocess.Popen) -> str:
    """Kill a process and return what it said besides "saved"."""
    child.kill()
    out, errors = child.communicate()
    assert not errors, errors.decode()
    return out.decode().replace("saved\n", "").strip()


def test_savers_take_turns_and_readers_get_one_model_whole(tmp_path):
    """One saver and two readers, then another saver beside them; 43 of 69 saves used to fail, 23 of 516 loads were mixed."""
    savers = [process(SAVER, str(tmp_path), "0,1")]
    readers = [process(READER, str(tmp_path), "0,1,2", "3") for _ in range(2)]
    try:
        savers.append(process(SAVER, str(tmp_path), "2"))
        for reader in readers:
            out, errors = reader.communicate(timeout=60)
            whole, mixed, refused = map(int, out.split())
            assert not errors and whole > 0 and (mixed, refused) == (0, 0), (whole, mixed, refused, errors.decode())
    finally:
        for child in [*savers, *readers]:
            if child.poll() is None:
                assert ended(child) == ""
    save(make_model(BASE, 0), tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("delay", [0.0, 0.013, 0.1])
def test_a_saver_that_is_killed_leaves_a_whole_model_and_the_next_save_clears_up(delay, tmp_path):
    child = process(SAVER, str(tmp_path), "0,1")
    child.stdout.readline()
    time.sleep(delay)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    before = tree(tmp_path)
    source = tmp_path
    try:
        found = load(source)
    except CheckpointError as error:
        assert "was stopped half-way" in str(error)
        found = load(tmp_path / ".saved")
    assert any(same(found, make_model(BASE, seed)) for seed in (0, 1))
    assert tree(tmp_path) == before
    save(make_model(BASE, 0), tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]


def test_where_there_are_no_locks_saving_and_loading_go_on(tmp_path, monkeypatch):
    import fcntl

    def none(*args):
        raise OSError(errno.ENOSYS, "no locks")

    save(make_model(OLD), tmp_path)
    monkeypatch.setattr(fcntl, "flock", none)
    save(make_model(NEW), tmp_path)
    assert same(load(tmp_path), make_model(NEW))
    os.rename(save(make_model(OLD), tmp_path / "other"), tmp_path / ".saved")
    with pytest.raises(CheckpointError, match="was stopped half-way"):
        load(tmp_path)


def test_where_there_are_no_hard_links_files_are_copied(tmp_path, monkeypatch):
    def none(*args):
        raise OSError(errno.EPERM, "no links")

    save(make_model(OLD), tmp_path)
    monkeypatch.setattr(folder.os, "link", none)
    save(make_model(NEW), tmp_path)
    assert same(load(tmp_path), make_model(NEW))
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]


def test_a_saver_that_never_ends_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "READER_WAITS", 0.05)
    save(make_model(OLD), tmp_path)
    os.rename(save(make_model(NEW), tmp_path / "new"), tmp_path / ".saved")
    with folder.locked(tmp_path), pytest.raises(CheckpointError, match="another process has been saving into"):
        load(tmp_path)


# --- full disks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("I/O error: No space left on device (os error 28)"),
        OSError(errno.EIO, "Input/output error"),
    ],
)
@pytest.mark.parametrize("there", [True, False])
def test_a_full_disk_leaves_the_old_checkpoint_and_says_what_is_needed(failure, there, tmp_path, monkeypatch):
    path = save(make_model(OLD), tmp_path / "checkpoint") if there else tmp_path / "checkpoint"

    def full(*args, **options):
        raise failure

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match=r"could not be saved.*it needs [\d,]+ bytes, and the disk has [\d,]+ free"):
        save(make_model(NEW), path)
    assert sorted(os.listdir(path)) == ["config.json", "model.safetensors"] * there
    if there:
        assert same(load(path), make_model(OLD))


def limited(code: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run code in a process none of whose files may grow over 20 kB: the system's own error, in the middle of a write."""
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-B", "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "ZAMBA_LAB_KERNELS": "0"},
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )


def test_export_onto_a_full_disk_is_a_sentence_and_status_2(tmp_path):
    source = save(make_model(BASE).double(), tmp_path / "source")
    target = save(make_model(NEW).half(), tmp_path / "target")
    before = tree(target)
    done = limited("import sys; from zamba_lab.cli import main; sys.exit(main(sys.argv[1:]))", "export", str(source), str(target))
    assert done.returncode == 2 and done.stderr.startswith("zamba-lab: "), done.stderr
    assert len(done.stderr.splitlines()) == 1 and "could not be saved" in done.stderr
    assert sorted(set(tree(target)) ^ set(before)) == []
    assert same(load(target), make_model(NEW).half())
