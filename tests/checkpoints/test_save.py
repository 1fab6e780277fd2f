"""Writing: nothing is lost, nothing else is touched, and a killed save leaves the old checkpoint whole."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from variants import BASE, VARIANTS, make_model

import zamba_lab.checkpoints.files
import zamba_lab.checkpoints.save
from zamba_lab.checkpoints import CheckpointError, load, save
from zamba_lab.config import ZambaConfig
from zamba_lab.model import Zamba

OLD, NEW = BASE, replace(BASE, n_layers=4, hybrid_layers=(0, 3), rope_theta=50.0)


def same(one: Zamba, other: Zamba) -> bool:
    pairs = zip(one.named_parameters(), other.named_parameters(), strict=True)
    return one.config == other.config and all(a == b and torch.equal(p, q) for (a, p), (b, q) in pairs)


@pytest.mark.parametrize("shards", ["one file", "shards"])
@pytest.mark.parametrize("name", VARIANTS)
def test_saved_and_loaded_is_the_same_model(name, shards, tmp_path):
    model = make_model(VARIANTS[name])
    assert save(model, tmp_path, max_shard_bytes=10**9 if shards == "one file" else 5000) == tmp_path
    assert same(load(tmp_path), model)


def test_the_files_of_a_checkpoint(tmp_path):
    save(make_model(BASE).float(), tmp_path / "one")
    assert sorted(os.listdir(tmp_path / "one")) == ["config.json", "model.safetensors"]
    with safe_open(tmp_path / "one" / "model.safetensors", "pt") as opened:
        assert opened.metadata() == {"format": "pt"}  # other readers ask for it
    raw = json.loads((tmp_path / "one" / "config.json").read_text())
    assert (raw["model_type"], raw["architectures"], raw["torch_dtype"]) == ("zamba2", ["Zamba2ForCausalLM"], "float32")

    save(make_model(BASE).float(), tmp_path / "many", max_shard_bytes=6000)
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    shards = sorted(path.name for path in (tmp_path / "many").glob("*.safetensors"))
    assert sorted(set(index["weight_map"].values())) == shards
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    assert index["metadata"]["total_size"] == 4 * BASE.n_params
    whole = max(4 * p.numel() for p in make_model(BASE).parameters())
    assert all((tmp_path / "many" / name).stat().st_size < max(6000, whole) + 4000 for name in shards)


def test_a_variant_that_others_lack_is_marked_as_ours(tmp_path):
    save(make_model(VARIANTS["AAB"]), tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    assert raw["model_type"] == "zamba_lab"
    assert raw["block_order"] == [0, 0, 1]
    with safe_open(tmp_path / "model.safetensors", "pt") as opened:
        assert set(opened.keys()) == {name for name, _ in make_model(VARIANTS["AAB"]).named_parameters()}


def test_a_folder_is_saved_over_and_its_other_files_stay(tmp_path):
    save(make_model(OLD), tmp_path, max_shard_bytes=5000)
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.txt").write_text("mine too")
    model = load(tmp_path)  # its weights are mapped from the files that are about to go
    save(make_model(NEW), tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["README.md", "config.json", "logs", "model.safetensors"]
    assert (tmp_path / "logs" / "a.txt").read_text() == "mine too"
    assert same(load(tmp_path), make_model(NEW))
    assert same(model, make_model(OLD))
    save(model, tmp_path)
    assert same(load(tmp_path), make_model(OLD))


def test_what_cannot_be_saved_leaves_no_trace(tmp_path):
    with torch.device("meta"):
        empty = Zamba(BASE)
    with pytest.raises(ValueError, match="meta device has no weights"):
        save(empty, tmp_path / "here")
    with pytest.raises(ValueError, match="max_shard_bytes must be 1 or more: got 0"):
        save(make_model(BASE), tmp_path / "here", max_shard_bytes=0)
    assert not (tmp_path / "here").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is a file"):
        save(make_model(BASE), tmp_path / "file")


class Killed(BaseException):
    """Not an error: nothing may catch it, as nothing catches a kill."""


@pytest.mark.parametrize("step", range(14))
@pytest.mark.parametrize("shards", [10**9, 5000])
def test_killed_at_any_renaming_the_old_or_the_new_checkpoint_is_whole(step, shards, tmp_path, monkeypatch):
    save(make_model(OLD), tmp_path, max_shard_bytes=10**9 if shards == 5000 else 5000)
    steps = iter(range(1000))

    def dying(function):
        def step_or_die(*args, **options):
            if next(steps) == step:
                raise Killed
            return function(*args, **options)

        return step_or_die

    with monkeypatch.context() as patch:
        patch.setattr(zamba_lab.checkpoints.files.os, "replace", dying(os.replace))
        patch.setattr(Path, "unlink", dying(Path.unlink))
        patch.setattr(Path, "write_text", dying(Path.write_text))
        try:
            save(make_model(NEW), tmp_path, max_shard_bytes=shards)
            finished = True
        except Killed:
            finished = False
    found = load(tmp_path)
    assert same(found, make_model(NEW)) or not finished and same(found, make_model(OLD))
    assert not finished or step > 3
    save(make_model(NEW), tmp_path)  # and the next save clears up
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]
    assert same(load(tmp_path), make_model(NEW))


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    save(make_model(OLD), tmp_path)

    def full(*args, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save(make_model(NEW), tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["config.json", "model.safetensors"]
    assert same(load(tmp_path), make_model(OLD))


def test_a_process_killed_while_saving_leaves_a_whole_checkpoint(tmp_path):
    code = (
        "import sys; from variants import *; from zamba_lab.checkpoints import save\n"
        "models = [make_model(BASE, seed) for seed in (0, 1)]\n"
        "save(models[0], sys.argv[1]); print('ready', flush=True)\n"
        "while True:\n    for model in models: save(model, sys.argv[1], max_shard_bytes=3000)"
    )
    here = Path(__file__).parents[1]
    path = os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    )
    try:
        assert child.stdout.readline() == b"ready\n"
        time.sleep(0.3)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    found = load(tmp_path)
    assert any(same(found, make_model(BASE, seed)) for seed in (0, 1))


def test_an_unfinished_save_in_a_folder_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    save(make_model(OLD), tmp_path)
    (tmp_path / ".saved").mkdir()

    def denied(*args):
        raise PermissionError("denied")

    monkeypatch.setattr(zamba_lab.checkpoints.files.os, "replace", denied)
    with pytest.raises(CheckpointError, match="stopped half-way and cannot be finished: denied"):
        load(tmp_path)


def test_every_preset_can_be_written_in_the_published_layout():
    from zamba_lab.checkpoints.config_write import write_config

    for name in ("zamba-7b-v1", "zamba2-1.2b", "zamba2-2.7b", "zamba2-7b", "zamba2-nano"):
        assert write_config(ZambaConfig.preset(name), "bfloat16")["model_type"] in ("zamba", "zamba2")
