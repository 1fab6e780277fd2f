"""A study file is data: reading it, or planning, running or reporting it, runs nothing that it names and writes nowhere else."""

import math

import pytest
import yaml
from ablate.tiny import BASE, FILE, study

from zamba_lab.ablate import Claim, Match, match, read_study
from zamba_lab.cli import main


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


PLAIN = {**FILE, "task": "mqar", "base": FILE["base"] | {"lora_rank": 2}}


def text(**lines: str) -> str:
    """A study's file with these keys, written by hand: YAML reads off, 010 and 1:30 in ways of its own."""
    kept = {key: value for key, value in PLAIN.items() if key not in lines}
    return yaml.safe_dump(kept) + "".join(f"{key}: {value}\n" for key, value in lines.items())


def read(tmp_path, **lines):
    (tmp_path / "study.yaml").write_text(text(**lines))
    return read_study(tmp_path / "study.yaml")


UNDERSTOOD = {
    "{lora_rank: [off]}": ("lora_rank=off", dict(lora_rank=0)),
    "{lora_rank: [no]}": ("lora_rank=off", dict(lora_rank=0)),
    "{d_conv: [off]}": ("d_conv=off", dict(d_conv=0)),
    "{rope_theta: [off]}": ("rope_theta=off", dict(rope_theta=None)),
    "{sharing: [off]}": ("sharing=off", dict(n_shared_blocks=0)),
    "{rope: ['off']}": ("rope=off", dict(rope_theta=None)),
    "{conv: [no]}": ("conv=off", dict(d_conv=0)),
    "{concat_embedding: ['off']}": ("concat_embedding=off", dict(concat_embedding=False)),
    "{d_state: [010]}": ("d_state=10", dict(d_state=10)),
    "{link_gain: [1e1]}": ("link_gain=10.0", dict(link_gain=10.0)),
}


@pytest.mark.parametrize("axes", UNDERSTOOD)
def test_what_yaml_reads_in_a_way_of_its_own_is_understood(axes, tmp_path):
    name, fields = UNDERSTOOD[axes]
    found = read(tmp_path, axes=axes, claims=f"[{{text: a claim, arm: {name}}}]")
    (arm,) = found.every_arm[1:]
    assert arm.name == name and all(getattr(arm.config, field) == value for field, value in fields.items())


READ_AS = r"on, yes and true are read as True; off, no and false as False"
EXPLAINED = {
    ("axes", "{d_state: [off]}"): f"d_state is not a switch: got False.*{READ_AS}",
    ("axes", "{d_state: [8, on]}"): f"d_state is not a switch: got True.*{READ_AS}",
    ("axes", "{lora_rank: [on]}"): f"lora_rank is not a switch: got True.*{READ_AS}",
    ("axes", "{period: [yes]}"): f"period is not a switch: got True; it may be layers.*{READ_AS}",
    ("axes", "{attention_scale: [on]}"): f"attention_scale is not a switch: got True.*{READ_AS}",
    ("axes", "{placement: [[0, yes]]}"): f"placement is not a switch: got \\(0, True\\).*{READ_AS}",
    ("axes", "{mixer: [no]}"): f"mixer is not a switch: got False.*{READ_AS}",
    ("axes", "{sharing: ABAB}"): "an axis takes a list of levels, at least one: got 'ABAB'",
    ("axes", "{d_state: [1:30]}"): "got '1:30'",
    ("seeds", "[no, 2]"): f"different integers of 0 or more.*{READ_AS}",
    ("seeds", "on"): f"seeds are a number of them, or a list: got True.*{READ_AS}",
    ("seeds", "1.5"): "seeds are a number of them, or a list: got 1.5",
    ("seeds", "1000000000000"): "1 to 10,000 different integers",
    ("name", "no"): f"a study's name has 1 to 100 letters.*got False.*{READ_AS}",
    ("weights", "'no'"): "weights must be true or false: got 'no'",
    ("solved", "on"): f"solved is an accuracy.*got True.*{READ_AS}",
    ("sample", "on"): f"sample 1 or more: got 0.99, True.*{READ_AS}",
    ("sample", "12.5"): "sample 1 or more: got 0.99, 12.5",
    ("margin", ".nan"): "margin must be above 0 and below 1: got nan",
    ("alpha", "yes"): f"alpha must be above 0 and below 0.5: got True.*{READ_AS}",
    ("power", "'0.8'"): "power must be above 0 and below 1: got '0.8'",
    ("rates", "[yes]"): f"rates must be numbers: got True.*{READ_AS}",
    ("rates", "1e-3"): "rates must be a list: got 0.001",
    ("task", "{size: ci}"): "a task has a name, one of .*mqar",
    ("task", "7"): "not iterable",
    ("base", "{lora_rank: off}"): f"lora_rank.*got False.*{READ_AS}",
    ("claims", "[{text: a, arm: off}]"): "a claim is about arms of the study: no 'off' among base, rope=off",
    ("claims", "[{text: a, arm: rope=off, threshold: .nan}]"): "threshold must be 0 or more",
    ("claims", "[{text: a, arm: rope=off, threshold: '0.1'}]"): "threshold must be 0 or more, and above 0 for equal: got '0.1'",
    ("claims", "[a claim]"): "claims|dictionary|sequence",
    ("grid", "[[rope, off]]"): "a grid has axes, each with a list of levels",
    ("arms", "{a: [rope]}"): "must say what it changes",
    ("arms", '{"\\x1b[31m": {rope: off}}'): "an arm's name is one line of printable text",
    ("match", "{by: params, knobs: [off]}"): f"widths that may be adjusted are .*got False.*{READ_AS}",
    ("metrics", "[on]"): f"a metric is one of .*got True.*{READ_AS}",
}


@pytest.mark.parametrize("key, value", EXPLAINED)
def test_what_yaml_reads_in_a_way_of_its_own_and_does_not_fit_is_explained(key, value, tmp_path):
    with pytest.raises(ValueError, match=rf"study.yaml:\d+: .*{EXPLAINED[key, value]}"):
        read(tmp_path, **{key: value})


def test_a_json_file_may_be_indented_by_tabs(tmp_path):
    import json

    (tmp_path / "study.json").write_text(json.dumps(PLAIN, indent="\t"))
    assert [arm.name for arm in read_study(tmp_path / "study.json").every_arm] == ["base", "rope=off"]


def test_a_small_file_asks_for_no_more_than_can_be_planned(tmp_path):
    """Bounds on what is counted up from a few characters: seeds, the points of a grid, the widths that a match tries."""
    levels = [str(1.0 + k) for k in range(40)]
    grid = f"[{{link_gain: [{', '.join(levels)}], norm_eps: [{', '.join(levels)}], dt_min: [{', '.join(levels)}]}}]"
    with pytest.raises(ValueError, match="a study has at most 10,000 arms: this grid has 64,000"):
        read(tmp_path, grid=grid)
    wide = study(base=BASE).base
    with pytest.raises(ValueError, match="arms are matched by widths of at most 100,000: got d_mlp=1,000,000"):
        match(study(axes={"d_mlp": [1_000_000]}).every_arm[1].config, wide, Match("params"), 8)


@pytest.mark.parametrize("threshold", [-0.1, math.nan, True, "0.1", None])
def test_a_threshold_is_a_number_of_0_or_more(threshold):
    with pytest.raises(ValueError, match="threshold must be 0 or more"):
        Claim("a claim", "base", threshold=threshold)
