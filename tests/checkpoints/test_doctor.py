"""The doctor describes a healthy checkpoint and names each planted fault."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from variants import BASE, VARIANTS, make_model

from zamba_lab import cli
from zamba_lab.checkpoints import CheckpointError, doctor, load, save

Q = "model.layers.1.shared_transformer.self_attn.q_proj.weight"
D = "model.layers.0.mamba.D"
IN = "model.layers.3.mamba.in_proj.weight"


@pytest.fixture
def folder(tmp_path) -> Path:
    return save(make_model(BASE).float(), tmp_path / "checkpoint")


def rewrite(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def edit_config(folder: Path, **changes) -> None:
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**raw, **changes}))


def test_a_healthy_checkpoint(folder):
    report = doctor(folder)
    assert report.ok and report.faults == []
    assert (report.layout, report.generation) == ("zamba2", "zamba2, spelling of transformers since 4.49")
    assert (report.n_params, report.n_bytes) == (BASE.n_params, 4 * BASE.n_params)
    assert [(one["depth"], one["block"]) for one in report.invocations] == [(1, 0), (2, 1), (4, 0)]
    assert all(one["adapters"] == ["mlp"] for one in report.invocations)
    assert report.ties == ["the head is the embedding", "block A serves the depths 1, 4", "block B serves the depths 2"]
    assert report.sizes["ssm_heads"] == BASE.ssm_heads and report.sizes["head_dim"] == BASE.head_dim
    assert set(report.dtypes) == {"F32"}
    text = str(report)
    assert "no fault found" in text and "invocation 1  depth 2   block B  adapters of mlp in slot 1" in text
    assert json.loads(json.dumps(report.as_dict()))["ok"] is True


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_is_described_and_healthy(name, tmp_path):
    save(make_model(VARIANTS[name]), tmp_path)
    assert doctor(tmp_path).ok
    assert str(VARIANTS[name].d_model) in str(doctor(tmp_path))


FAULTS = {
    "missing": lambda tensors: tensors.pop(D),
    "left over": lambda tensors: tensors.update({D.replace(".0.", ".9."): torch.ones(3)}),
    "wrong shape": lambda tensors: tensors.update({D: torch.ones(9)}),
    "dtype": lambda tensors: tensors.update({D: tensors[D].to(torch.int8)}),
    "NaN": lambda tensors: tensors[D][1].fill_(float("nan")),
    "infinite": lambda tensors: tensors[D][1].fill_(-float("inf")),
    "all zero": lambda tensors: tensors[IN].zero_(),
    "copies differ": lambda tensors: tensors.update({Q.replace(".1.", ".4."): tensors[Q] + 1}),
    "layout": lambda tensors: [tensors.update({f"other.{name}": tensors.pop(name)}) for name in list(tensors)],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_planted_fault_is_named_and_no_other(fault, folder):
    rewrite(folder, FAULTS[fault])
    report = doctor(folder)
    assert [one["fault"] for one in report.faults] == [fault]
    assert not report.ok and f"FAULT {fault}" in str(report)
    concerned = {"all zero": IN, "copies differ": Q, "layout": "", "left over": D.replace(".0.", ".9.")}.get(fault, D)
    assert concerned in "".join(report.faults[0]["tensors"])
    if fault != "all zero":  # odd, but loadable
        with pytest.raises(CheckpointError):
            load(folder)


def test_several_faults_are_all_named(folder):
    for fault in ("missing", "NaN", "all zero"):
        rewrite(folder, FAULTS[fault] if fault != "NaN" else lambda tensors: tensors[Q].fill_(float("nan")))
    assert [one["fault"] for one in doctor(folder).faults] == ["missing", "NaN", "all zero"]


@pytest.mark.parametrize(
    ("fault", "corrupt"),
    [
        ("config", lambda folder: (folder / "config.json").write_text("{")),
        ("config", lambda folder: edit_config(folder, mamba_d_stat=3)),
        ("config", lambda folder: edit_config(folder, kv_channels=99)),
        ("files", lambda folder: (folder / "model.safetensors").unlink()),
        ("files", lambda folder: (folder / "model.safetensors").write_bytes(b"12345678")),
        ("two models", lambda folder: (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../b"}}')),
        ("wrong shape", lambda folder: edit_config(folder, mamba_d_state=9)),
        ("layout", lambda folder: edit_config(folder, vocab_size=2**62)),
    ],
)
def test_faults_of_config_and_files(fault, corrupt, folder):
    corrupt(folder)
    assert [one["fault"] for one in doctor(folder).faults] == [fault]


def test_nothing_to_examine_is_an_error(tmp_path):
    with pytest.raises(CheckpointError, match="there is no"):
        doctor(tmp_path / "nowhere")


def test_an_empty_folder_is_said_to_be_empty(tmp_path, capsys):
    assert cli.main(["doctor", str(tmp_path)]) == 1
    assert "1 kind of fault\n" in (text := capsys.readouterr().out) and "the folder is empty" in text
    for name in ("a", "b"):
        (tmp_path / name).write_text("")
    cli.main(["doctor", str(tmp_path)])
    assert "it has no config.json, but ['a', 'b']" in capsys.readouterr().out


def test_info_counts_in_whole_numbers(capsys):
    assert cli.main(["info", "zamba2-2.7b", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert all(
        type(value) is int
        for name, value in facts.items()
        if name.startswith(("FLOPs", "cache", "weight", "parameters")) and name != "parameters by part"
    )


@pytest.mark.parametrize(
    ("config", "remark"),
    [
        (replace(BASE, n_groups=2), "gated norm: over each of 2 groups"),
        (replace(BASE, n_shared_blocks=2), "block order: blocks alternate"),
        (replace(BASE, rope_theta=None), "positions: attention has none"),
        (replace(BASE, mixer="mamba1", n_shared_blocks=1, rope_theta=None, lora_rank=0), "in_proj: its rows alternate"),
        (replace(BASE, lora_rank=0), "only this project opens it"),
    ],
)
def test_what_other_readers_get_wrong_is_said(config, remark, tmp_path):
    save(make_model(config), tmp_path)
    assert any(text.startswith(remark) or remark in text for text in doctor(tmp_path).remarks)


def test_what_the_config_decides_is_said(folder):
    edit_config(folder, time_step_min=0.001)
    assert any("load(..., dt_min=0.001) reproduces that" in text for text in doctor(folder).remarks)
    edit_config(folder, use_long_context=True)
    assert any("long context: the base of the positions is scaled" in text for text in doctor(folder).remarks)
    raw = json.loads((folder / "config.json").read_text())
    del raw["num_mem_blocks"], raw["use_mem_rope"]
    (folder / "config.json").write_text(json.dumps(raw))
    assert any(
        "num_mem_blocks, use_mem_rope not given" in text and "Read as: num_mem_blocks 1, use_mem_rope False" in text
        for text in doctor(folder).remarks
    )


def test_copies_and_spares_are_told(folder):
    rewrite(folder, lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}))
    report = doctor(folder)
    assert report.ok
    assert "lm_head.weight is stored as a copy of model.embed_tokens.weight" in report.ties
