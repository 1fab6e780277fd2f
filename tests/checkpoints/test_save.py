"""Writing: nothing is lost and nothing else is touched. What a kill leaves is in test_folder.py."""

import json
import os
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from variants import BASE, VARIANTS, make_model

from zamba_lab.checkpoints import load, save
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


def test_every_preset_can_be_written_in_the_published_layout():
    from zamba_lab.checkpoints.config_write import write_config

    for name in ("zamba-7b-v1", "zamba2-1.2b", "zamba2-2.7b", "zamba2-7b", "zamba2-nano"):
        assert write_config(ZambaConfig.preset(name), "bfloat16")["model_type"] in ("zamba", "zamba2")
