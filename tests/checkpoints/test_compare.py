"""The comparison with transformers finds sameness, finds a difference, and refuses what would compare nothing."""

import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from variants import BASE, VARIANTS, make_model

from zamba_lab.checkpoints import CheckpointError, compare, parity, save
from zamba_lab.checkpoints.config_write import write_config
from zamba_lab.checkpoints.published import OWN

pytest.importorskip("transformers")


@pytest.fixture
def folder(tmp_path):
    return save(make_model(BASE).float(), tmp_path / "checkpoint")


def test_a_sound_checkpoint_is_the_same_in_both(folder):
    found = parity(folder, torch.arange(37)[None] % BASE.vocab_size)
    assert list(found.differences) == [*(f"depth {i}" for i in range(BASE.n_layers)), "final norm", "logits"]
    assert max(found.differences.values()) < 2e-5 and found.same_choice == found.n_tokens == 37
    assert "same at 37 of 37" in str(found) and "transformers 5." in str(found)


def test_a_difference_is_found_at_its_depth(folder, monkeypatch):
    load = compare.load

    def corruptt(*args, **options):
        model = load(*args, **options)
        with torch.no_grad():
            model.layers[2].mamba.D.add_(0.5)
        return model

    monkeypatch.setattr(compare, "load", corruptt)
    found = parity(folder)
    assert max(found.differences[f"depth {i}"] for i in range(3)) < 2e-5 < found.differences["depth 3"]


def test_what_transformers_cannot_read_is_refused(folder, tmp_path):
    name = next(name for name, config in VARIANTS.items() if write_config(config, "float32")["model_type"] == OWN)
    with pytest.raises(CheckpointError, match="transformers cannot open"):
        parity(save(make_model(VARIANTS[name]).float(), tmp_path / "own"))
    tensors = load_file(folder / "model.safetensors")
    older = {name.replace("mamba_decoder.", "renamed."): tensor for name, tensor in tensors.items()}
    save_file(older, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="would put random numbers there"):
        compare._there(sys.modules["transformers"], folder, torch.arange(9)[None], torch.float32)


def test_arguments_are_checked(folder, monkeypatch):
    with pytest.raises(ValueError, match=r"ids must be \(1, l\): got \(2, 3\)"):
        parity(folder, torch.zeros(2, 3, dtype=torch.long))
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        parity(folder)
