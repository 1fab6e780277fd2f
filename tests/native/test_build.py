"""Building the native kernels: kept, rebuilt when spoiled, and done without, with one warning that says why."""

import ctypes
import os
import shutil
import stat
import subprocess
import sys
import warnings

import pytest
import torch
from ops.inputs import ssd_inputs

from zamba_lab import native
from zamba_lab.native import build
from zamba_lab.ops.ssd import ssd, ssd_chunked

has_compiler = pytest.mark.skipif(not native.available(), reason=f"no native kernels: {native.why_not()}")


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
        build._seal(file)

    if not os.path.exists(built):
        pytest.skip("the kernels in use are kept nowhere")
    monkeypatch.setattr(build, "build", copy)
    return asked


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
    ],
)
def test_without_a_working_compiler_the_pure_form_answers_and_one_warning_says_why(fresh, monkeypatch, compiler, words):
    monkeypatch.setenv("CC", compiler_script(fresh, compiler) if " " in compiler else compiler)
    inputs = ssd_inputs()
    with pytest.warns(RuntimeWarning, match="without its native kernels") as caught:
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
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert len(list(tmp_path.glob("*.so"))) == 1 and len(list(tmp_path.iterdir())) == 2
