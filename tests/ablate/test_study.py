"""A study file is data: reading it, or planning, running or reporting it, runs nothing that it names and writes nowhere else."""

import pytest
import yaml
from ablate.records import drawn
from ablate.tiny import study

from zamba_lab.ablate import Store, read_study
from zamba_lab.cli import main

FILE = {
    "name": "planted",
    "base": {"d_model": 16, "n_layers": 2, "headdim": 8, "n_shared_blocks": 1, "hybrid_layers": [1], "attn_heads": 2, "d_mlp": 16},
    "task": {"from": "ablate.tiny:Before"},
    "train": {"steps": 6, "batch": 4},
    "seeds": 2,
    "axes": {"rope": [False]},
}


def written(tmp_path, **changes):
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(FILE | changes))
    return file


@pytest.mark.parametrize("what", ["plan", "run", "report"])
@pytest.mark.parametrize("allowed", [[], ["os"], ["os:"], ["os:systems"], ["OS:system"], ["ablate.tiny:Before"]], ids=str)
@pytest.mark.parametrize("place", ["task", "also"])
def test_no_code_that_a_file_names_is_run_without_that_very_name_on_the_command_line(what, allowed, place, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    planted = {"from": "os:system", "command": f"touch {tmp_path / 'harm'}"}
    changes = {"task": planted} if place == "task" else {"task": "mqar", "also": {"more": planted}}
    words = [word for name in allowed for word in ("--allow-import", name)]
    assert main(["ablate", what, str(written(tmp_path, **changes)), *words]) == 2
    assert "--allow-import os:system" in capfd.readouterr().err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["study.yaml"]


def test_python_needs_the_name_too_and_a_text_is_no_list_of_names(tmp_path):
    file = written(tmp_path)
    for allowed in ((), ["ablate.tiny"], "ablate.tiny:Before", "ablate.tiny:Before and more"):
        with pytest.raises(ValueError, match="study.yaml:.*which runs code that this file names"):
            read_study(file, allow_import=allowed)
    assert read_study(file, allow_import=["ablate.tiny:Before"]).task.name == "before"


@pytest.mark.parametrize("source", [7, None, ["os:system"], {"os": "system"}], ids=str)
def test_a_name_that_is_no_text_is_refused(source, tmp_path):
    with pytest.raises(ValueError, match="which runs code that this file names"):
        read_study(written(tmp_path, task={"from": source}), allow_import=["os:system"])


@pytest.mark.parametrize(
    "name", ["../../x", "a/b", "..", "/tmp/x", "a b", "a\nb", "a\n", "<b>", "", "é", "x" * 101, 7, None, False, "C:x", "a\\b"]
)
@pytest.mark.parametrize("what", ["plan", "run", "report"])
def test_a_name_is_a_name_and_leads_nowhere(name, what, tmp_path, monkeypatch, capsys):
    (place := tmp_path / "in" / "here").mkdir(parents=True)
    monkeypatch.chdir(place)
    assert main(["ablate", what, str(written(tmp_path, name=name)), "--allow-import", "ablate.tiny:Before"]) == 2
    assert "name has 1 to 100 letters, digits, - and _" in capsys.readouterr().err
    assert sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*")) == ["in", "in/here", "study.yaml"]
    with pytest.raises(ValueError, match="name has 1 to 100 letters"):
        study(name=name)
