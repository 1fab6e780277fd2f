"""One folder, several processes, kills, full disks, planted links: reading changes nothing, a load is one model whole."""

import contextlib
import errno
import hashlib
import io
import multiprocessing
import os
import resource
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


@pytest.mark.parametrize("name", MARKERS)
def test_a_link_that_takes_a_folders_place_while_a_save_is_finished_is_not_followed(name, tmp_path, monkeypatch):
    path = planted(tmp_path, "nothing")
    before = tree(tmp_path / "victim")
    check = folder.planted_links

    def plant_after_the_check(where):
        links = check(where)
        if not os.path.lexists(where / name):
            (where / name).symlink_to(tmp_path / "victim")
        return links

    monkeypatch.setattr(folder, "planted_links", plant_after_the_check)
    monkeypatch.setattr(folder, "_is_folder", lambda where: where.is_dir())
    with pytest.raises((OSError, CheckpointError)):
        save(make_model(NEW), path)
    assert tree(tmp_path / "victim") == before


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


# Its children are forked from a server that has torch imported already.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["torch", "zamba_lab.checkpoints"])


def saver(path: Path, seeds: list[int], pipe) -> None:
    """Save models of these seeds in turn, for ever; "ready" after the first, an error's text if there is one."""
    try:
        models = [make_model(BASE, seed) for seed in seeds]
        save(models[0], path)
        pipe.send("ready")
        while True:
            for model in models:
                save(model, path, max_shard_bytes=3000)
    except Exception as error:
        pipe.send(repr(error))


def reader(path: Path, seeds: list[int], seconds: float, pipe) -> None:
    """Load for some seconds; how many loads gave one of the models whole, how many a mixture, how many were refused."""
    models = [make_model(BASE, seed) for seed in seeds]
    counts, until = {"whole": 0, "mixed": 0, "refused": 0}, time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            loaded = load(path)
        except CheckpointError:
            counts["refused"] += 1
        else:
            counts["whole" if any(same(loaded, model) for model in models) else "mixed"] += 1
    pipe.send(counts)


def start(target, *arguments):
    """A process and the end of a pipe on which it reports."""
    here, there = FORKS.Pipe()
    child = FORKS.Process(target=target, args=(*arguments, there), daemon=True)
    child.start()
    there.close()
    return child, here


def answer(pipe, seconds: float = 120):
    """What a process reports, or why it does not."""
    if not pipe.poll(seconds):
        return f"no answer in {seconds} s"
    try:
        return pipe.recv()
    except EOFError:
        return "ended"


def stop(child, pipe) -> str:
    """Kill a process, as kill -9 does; what it had reported and nobody has read."""
    child.kill()
    child.join()
    return answer(pipe, 0)


def test_savers_take_turns_and_readers_get_one_model_whole(tmp_path):
    """Two savers and two readers; 43 of 69 saves used to fail, and 23 of 516 loads to be mixed."""
    savers, readers = [start(saver, tmp_path, [0, 1])], []
    try:
        assert answer(savers[0][1]) == "ready"
        savers.append(start(saver, tmp_path, [2]))
        readers += [start(reader, tmp_path, [0, 1, 2], 2.0) for _ in range(2)]
        assert answer(savers[1][1]) == "ready"
        for _, pipe in readers:
            counts = answer(pipe)
            assert counts["whole"] > 0 and counts["mixed"] == counts["refused"] == 0, counts
    finally:
        ends = [stop(*process) for process in (*savers, *readers)]
    assert set(ends) == {"ended"}
    save(make_model(BASE, 0), tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("delay", [0.0, 0.013, 0.1])
def test_a_saver_that_is_killed_leaves_a_whole_model_and_the_next_save_clears_up(delay, tmp_path):
    child, pipe = start(saver, tmp_path, [0, 1])
    assert answer(pipe) == "ready"
    time.sleep(delay)
    assert stop(child, pipe) == "ended"
    before = tree(tmp_path)
    try:
        loaded = load(tmp_path)
    except CheckpointError as error:
        assert "was stopped half-way" in str(error)
        loaded = load(tmp_path / ".saved")
    assert any(same(loaded, make_model(BASE, seed)) for seed in (0, 1))
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
    def none(*args, **options):
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
