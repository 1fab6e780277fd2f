"""A wheel, installed into an environment outside the checkout, brings models, studies, notebooks and native sources along."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from zamba_lab import lab, resources
from zamba_lab.cli import main

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Runs a command of an environment that has the wheel and nothing else of ours, in an empty folder; returns what it printed."""
    folder = tmp_path_factory.mktemp("install")
    subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run(build, check=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    binaries = folder / "env" / ("Scripts" if os.name == "nt" else "bin")
    subprocess.run([binaries / "python", "-m", "pip", "install", "-q", "--no-deps", wheel], check=True, cwd=folder)
    (folder / "empty").mkdir()
    # The libraries it stands on are those that run this test. On such a path .pth files are not read, so it does not see the checkout.
    environment = {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib"), "PYTHONSAFEPATH": "1"}

    def run(command: str, *arguments: str) -> str:
        call = [binaries / command, *arguments]
        done = subprocess.run(call, cwd=folder / "empty", env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_shipped_model_is_loaded_from_the_installed_package(installed):
    code = (
        "import json, torch, zamba_lab as zl; m = zl.load('zamba2-nano'); ids = torch.tensor([m.tokenizer.encode('import os')]);"
        "print(json.dumps([zl.__file__, zl.__version__, zl.generate(m, ids, 4).tolist()]))"
    )
    file, version, tokens = json.loads(installed("python", "-c", code))
    assert str(ROOT) not in file and len(tokens[0]) == 4
    assert f"zamba-lab {version}" == installed("zamba-lab", "--version").strip()


def test_stored_studies_are_reported_from_the_installed_package(installed):
    assert "attention" in installed("zamba-lab", "ablate", "report", "quick")


def test_the_notebooks_are_copied_from_the_installed_package(installed):
    assert "notebooks are in" in installed("zamba-lab", "lab", "mine", "--copy-only")
    names = installed("python", "-c", "import os; print(*sorted(os.listdir('mine')))").split()
    assert [name for name in names if name.endswith(".ipynb")] == sorted(file.name for file in (ROOT / "notebooks").glob("*.ipynb"))


def test_every_native_source_is_in_the_wheel(installed):
    code = (
        "import zamba_lab, pathlib; folder = pathlib.Path(zamba_lab.__file__).parent;"
        "print(*sorted(str(file.relative_to(folder)) for file in folder.rglob('*.[cih]*')))"
    )
    sources = [str(file.relative_to(ROOT / "zamba_lab")) for file in (ROOT / "zamba_lab").rglob("*") if file.suffix in (".c", ".inc", ".h")]
    assert sources and set(sources) <= set(installed("python", "-c", code).split())


def test_an_edited_notebook_is_kept(tmp_path, capsys):
    copied, kept = lab.copy_notebooks(tmp_path)
    assert tmp_path / lab.FIRST_NOTEBOOK in copied and not kept
    (tmp_path / lab.FIRST_NOTEBOOK).write_text("mine", encoding="utf-8")
    assert main(["lab", str(tmp_path), "--copy-only"]) == 0
    assert "kept as it is" in capsys.readouterr().out
    assert (tmp_path / lab.FIRST_NOTEBOOK).read_text(encoding="utf-8") == "mine"


def test_a_target_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main(["lab", str(tmp_path / "file"), "--copy-only"]) == 2
    assert "cannot be copied" in capsys.readouterr().err


def test_a_package_without_its_data_says_so():
    with pytest.raises(ValueError, match="has no folder 'poems'"):
        resources.folder("poems")
