"""Building the native kernels: kept, rebuilt when spoiled, and done without, with one warning that says why."""

import ctypes
import os
import shutil
import stat
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import torch
from ops.inputs import ssd_inputs

from zamba_lab import native
from zamba_lab.native import build
from zamba_lab.ops.ssd import ssd, ssd_chunked

has_compiler = pytest.mark.skipif(not native.available(), reason=f"no native kernels: {native.why_not()}")


_BUILT = build.library()._name if native.available() else None


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """As in a process that has not looked for the kernels yet, with an empty cache."""
    for name, value in (("_library", None), ("_reason", None), ("_tried", False)):
        monkeypatch.setattr(build, name, value)
    monkeypatch.setenv("ZAMBA_LAB_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def quick(monkeypatch):
    """Building is copying what was built already; returns the list of files that were asked for."""
    built = build.library()._name
    asked = []

    def copy(compiler, file):
        asked.append(file)
        file.unlink(missing_ok=True)  # never into a file that this process may have open
        file.with_suffix(".sha256").unlink(missing_ok=True)
        shutil.copyfile(built, file)
        file.chmod(0o600)
        build._seal(file)

    if not os.path.exists(built):
        pytest.skip("the kernels in use are kept nowhere")
    monkeypatch.setattr(build, "build", copy)
    return asked


def build_of_this_process():
    """The file that the native forms of this process were loaded from, whatever `fresh` pretends."""
    return _BUILT


def replace(file, content):
    """Another file of that name: this process has the old one open."""
    file.unlink()
    file.write_bytes(content)


def compiler_script(folder, text):
    script = folder / "compiler"
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return str(script)


@pytest.mark.parametrize(
    "compiler, words",
    [
        ("no-such-compiler", "named by CC is not there"),
        ("false", "does not compile them"),
        ("echo 'bad.c:1: error: this processor is unknown' >&2; exit 1", "error: this processor is unknown"),
        ("printf '\\377\\376 error: no text\\n' >&2; exit 1", "error: no text"),
        ("while :; do sleep 1; done", "did not end in time"),
        ("if [ $1 = --version ]; then exit 0; fi; while :; do sleep 1; done", "did not end in time"),
        ("gcc '", "CC is no command line"),
        ("gcc \\", "CC is no command line"),
        ("not a program", "cannot be run"),
    ],
)
def test_without_a_working_compiler_the_pure_form_answers_and_one_warning_says_why(fresh, monkeypatch, compiler, words):
    monkeypatch.setattr(build, "TIME_LIMIT", 2)
    if compiler == "not a program":
        (fresh / "compiler").write_bytes(b"\0\1\2")
        (fresh / "compiler").chmod(0o700)
        monkeypatch.setenv("CC", str(fresh / "compiler"))
    else:
        monkeypatch.setenv("CC", compiler_script(fresh, compiler) if " " in compiler and "gcc" not in compiler else compiler)
    inputs = ssd_inputs()
    with pytest.warns(RuntimeWarning, match="without its native forms") as caught:
        got = ssd(*inputs)
    assert len(caught) == 1 and words in str(caught[0].message) and words in native.why_not()
    assert all(torch.equal(a, b) for a, b in zip(got, ssd_chunked(*inputs)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ssd(*inputs)  # once is enough


def test_no_compiler_at_all(fresh, monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", str(fresh))
    with pytest.warns(RuntimeWarning, match="there is no C compiler .* apt-get install gcc"):
        assert not native.available()


def test_switched_off_is_silent(fresh, monkeypatch):
    monkeypatch.setenv("ZAMBA_LAB_NATIVE", "off")
    assert not native.available() and "switched off" in native.why_not()


@has_compiler
def test_what_was_built_is_found_again(quick, fresh, monkeypatch):
    assert native.available() and len(quick) == 1
    monkeypatch.setattr(build, "_tried", False)
    monkeypatch.setattr(build, "_library", None)
    assert native.available() and len(quick) == 1


@has_compiler
@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: replace(f, f.read_bytes()[:5000]),
        lambda f: replace(f, b""),
        lambda f: f.with_suffix(".sha256").unlink(),
        lambda f: f.unlink(),
        lambda f: f.with_suffix(".sha256").write_bytes(b"\xff\xfe"),
    ],
    ids=["cut short", "empty", "no hash", "gone", "no text for a hash"],
)
def test_a_spoiled_cache_is_built_again(quick, fresh, monkeypatch, spoil):
    native.available()
    spoil(quick[0])
    monkeypatch.setattr(build, "_tried", False)
    monkeypatch.setattr(build, "_library", None)
    assert native.available() and len(quick) == 2


@has_compiler
def test_a_library_of_another_version_is_not_used(quick, fresh, monkeypatch):
    monkeypatch.setattr(build, "ABI", -1)
    with pytest.warns(RuntimeWarning, match="does not load"):
        assert not native.available()


@has_compiler
def test_where_nothing_can_be_kept_it_is_built_for_the_process(quick, fresh, monkeypatch):
    (fresh / "file").write_text("")
    monkeypatch.setenv("ZAMBA_LAB_CACHE", str(fresh / "file"))
    assert native.available()
    assert isinstance(build.library(), ctypes.CDLL)


@has_compiler
def test_without_a_home_it_is_built_for_the_process(quick, fresh, monkeypatch):
    def no_home(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", no_home)
    assert native.available() and quick[0].parent.name.startswith("building-")


@has_compiler
def test_a_full_cache_disk_leaves_the_temporary_folder(quick, fresh, monkeypatch):
    copy = build.build

    def full(compiler, file):
        if fresh in file.parents:
            raise OSError(28, "No space left on device")
        copy(compiler, file)

    monkeypatch.setattr(build, "build", full)
    assert native.available() and fresh not in quick[0].parents


def plant(fresh, built, folder_mode=0o700, mode=0o600, owner=None, link=False, folder_link=False):
    """The cache as somebody else might have left it, with a library of the right name and hash."""
    real = fresh / "planted"
    real.mkdir(mode=0o700)
    name = f"kernels-{build._key(build.find_compiler())}.so"
    shutil.copyfile(built, real / name)
    build._seal(real / name)
    folder = fresh / "cache" / "native"
    folder.parent.mkdir()
    if folder_link:
        folder.symlink_to(real)
        return
    folder.mkdir()
    for file in list(real.iterdir()):
        if link:
            (folder / file.name).symlink_to(file)
        else:
            shutil.copyfile(file, folder / file.name)
            (folder / file.name).chmod(mode)
    folder.chmod(folder_mode)
    if owner is not None:
        for path in (*folder.iterdir(), folder):
            os.chown(path, owner, owner)


@has_compiler
@pytest.mark.parametrize(
    "planted",
    [
        dict(folder_mode=0o777),
        dict(folder_mode=0o720),
        dict(mode=0o666),
        dict(mode=0o620),
        dict(link=True),
        dict(folder_link=True),
        pytest.param(dict(owner=12345), marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")),
    ],
    ids=str,
)
def test_what_others_may_have_written_is_not_loaded(quick, fresh, planted):
    plant(fresh, build_of_this_process(), **planted)
    with pytest.warns(RuntimeWarning, match="built anew for this process and not kept"):
        assert native.available()
    assert fresh not in quick[0].parents


@has_compiler
def test_what_is_kept_is_this_users_alone_and_killed_builds_leave_nothing(fresh, monkeypatch):
    monkeypatch.setattr(build, "UNITS", {"library": ("any",)})
    folder = fresh / "cache" / "native"
    folder.mkdir(parents=True, mode=0o700)
    for name, age in (("building-old", 2 * build.TIME_LIMIT + 60), ("building-new", 0)):
        (folder / name).mkdir()
        (folder / name / "ssd.o").write_bytes(b"")
        os.utime(folder / name, (time.time() - age,) * 2)
    before = os.umask(0)
    try:
        assert native.available()
    finally:
        os.umask(before)
    kept = [path for path in folder.iterdir() if path.is_file()]
    assert len(kept) == 2 and all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in kept)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["building-new"]


@has_compiler
@pytest.mark.skipif(not build.WIDE, reason="a flag of x86-64")
def test_a_compiler_that_does_not_know_a_flag_goes_without_it(fresh):
    refuses = f'case "$*" in *{build.WIDE[0]}*) echo "error: unrecognized option" >&2; exit 1;; esac; exec cc "$@"'
    build.build([compiler_script(fresh, refuses)], fresh / "kernels.so")
    assert build._open(fresh / "kernels.so") is not None


@has_compiler
def test_another_compiler_flag_or_source_has_another_name(monkeypatch):
    compiler = build.find_compiler()
    names = {build._key(compiler)}
    monkeypatch.setenv("ZAMBA_LAB_CFLAGS", "-g -mno-avx512f")
    assert build.all_flags()[-2:] == ["-g", "-mno-avx512f"]
    names.add(build._key(compiler))
    monkeypatch.setattr(build, "_processor", lambda: "another")
    names.add(build._key(compiler))
    assert len(names) == 3


@has_compiler
def test_two_processes_may_build_at_once(tmp_path):
    """Really compiled, so the longest test here."""
    code = "from zamba_lab import native; assert native.available(), native.why_not()"
    environment = {**os.environ, "ZAMBA_LAB_CACHE": str(tmp_path)}
    both = [subprocess.Popen([sys.executable, "-W", "error", "-c", code], env=environment) for _ in range(2)]
    assert [process.wait(timeout=500) for process in both] == [0, 0]
    assert len(list(tmp_path.glob("native/*.so"))) == 1 and len(list((tmp_path / "native").iterdir())) == 2
