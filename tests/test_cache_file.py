"""A state on the disk: what another process reads back is bit for bit what was written, and nothing else is taken for it."""

import json
import pickle
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from variants import VARIANTS, make_model, random_ids

import zamba_lab as zl

OTHER_PROCESS = """
import sys, torch, zamba_lab as zl
from variants import VARIANTS, make_model
name, file, ids, out = sys.argv[1:]
model, ids = make_model(VARIANTS[name]), torch.load(ids)
cache = zl.Cache.load(file, model)
with torch.no_grad():
    logits, longer = model.extend(ids, cache)
    step, _ = model.extend(ids[:, :1], longer)
written = zl.generate(model.float(), ids, 5, cache=cache)
torch.save((logits, step, written), out)
"""


@pytest.mark.parametrize("name", ["base", "mamba1", "transformer", "pure mamba2", "no convolution"])
@torch.no_grad()
def test_another_process_goes_on_bit_for_bit(name, tmp_path):
    config = VARIANTS[name]
    model, ids = make_model(config), random_ids(config, l=9)
    _, cache = model.extend(random_ids(config, seed=2), mask=torch.ones(2, 19).index_fill(1, torch.tensor([0, 1]), 0))
    file = cache.save(tmp_path / "prompt.safetensors")
    torch.save(ids, tmp_path / "ids")
    arguments = [name, str(file), str(tmp_path / "ids"), str(tmp_path / "out")]
    subprocess.run([sys.executable, "-c", OTHER_PROCESS, *arguments], check=True, env=in_this_checkout())
    logits, longer = model.extend(ids, cache)
    step, _ = model.extend(ids[:, :1], longer)
    written = zl.generate(model.float(), ids, 5, cache=cache)
    for here, there in zip((logits, step, written), torch.load(tmp_path / "out")):
        assert torch.equal(here, there)


def in_this_checkout():
    import os

    here = [str(zl.__path__[0]).removesuffix("/zamba_lab"), str(next(p for p in sys.path if p.endswith("tests")))]
    return {**os.environ, "PYTHONPATH": ":".join(here)}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@torch.no_grad()
def test_what_is_read_back_is_what_was_written(name, dtype, tmp_path):
    config = VARIANTS[name]
    model, ids = make_model(config).to(dtype), random_ids(config)
    _, cache = model.extend(ids[:, :11])
    _, cache = model.extend(ids[:, 11:12], cache)
    back = zl.Cache.load(cache.save(tmp_path / "a cache"), model)
    assert (back.length, back.batch, back.mask, back.nbytes) == (12, 2, None, cache.nbytes)
    assert torch.equal(back.tokens, ids[:, :12])
    for mine, other in zip(cache.layers, back.layers):
        assert mine.tensors().keys() == other.tensors().keys()
        assert all(torch.equal(t, other.tensors()[key]) and t.dtype == other.tensors()[key].dtype for key, t in mine.tensors().items())


@pytest.fixture
def saved(tmp_path):
    model = make_model(VARIANTS["base"])
    with torch.no_grad():
        return model, model.extend(random_ids(VARIANTS["base"]))[1].save(tmp_path / "prompt")


OTHERS = {
    "its config has d_state 6 there, 8 here": lambda model: make_model(replace(model.config, d_state=8)),
    "its config has attn_gain 1.0 there, 0.5 here": lambda model: with_config(model, attn_gain=0.5),
    "its weights were float64, these are float32": lambda model: model.float(),
    "the hash of its weights is": lambda model: make_model(model.config, seed=1),
}


def with_config(model, **changes):
    other = zl.Zamba(replace(model.config, **changes)).double()
    other.load_state_dict(model.state_dict())
    return other


@pytest.mark.parametrize("sentence, change", OTHERS.items(), ids=OTHERS)
def test_another_model_is_refused(sentence, change, saved):
    model, file = saved
    with pytest.raises(ValueError, match=f"is of another model: {sentence}"):
        zl.Cache.load(file, change(model))


def test_one_changed_weight_makes_another_model(saved):
    model, file = saved
    with torch.no_grad():
        model.layers[2].mamba.dt_bias[1] += 1e-12
    with pytest.raises(ValueError, match="the hash of its weights"):
        zl.Cache.load(file, model)


@pytest.mark.parametrize("left", [0, 7, 100, 0.5, 0.999])
def test_a_truncated_file_is_refused(left, saved):
    model, file = saved
    content = file.read_bytes()
    file.write_bytes(content[: left if isinstance(left, int) else int(left * len(content))])
    with pytest.raises(ValueError, match="is not a whole cache file .*read the prompt again"):
        zl.Cache.load(file, model)


def test_a_damaged_file_and_a_file_of_something_else_are_refused(saved, tmp_path):
    model, file = saved
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        zl.Cache.load(file, model)
    save_file({"a": torch.ones(2)}, tmp_path / "weights")
    with pytest.raises(ValueError, match="is not a saved cache of this version: its format is None"):
        zl.Cache.load(tmp_path / "weights", model)
    with pytest.raises(FileNotFoundError):
        zl.Cache.load(tmp_path / "nothing", model)


def test_the_file_says_of_which_model_tokens_and_dtype_it_is(saved):
    model, file = saved
    with safe_open(file, framework="pt") as opened:
        about = opened.metadata()
    assert len(about["model"]) == len(about["tokens"]) == 64 and about["dtype"] == "float64"
    assert json.loads(about["config"])["d_state"] == 6 and about["length"] == "19"
    assert torch.equal(load_file(file)["tokens"], random_ids(model.config))


@torch.no_grad()
def test_a_cache_knows_its_model_and_tokens_through_copies_but_not_through_a_pickle(tmp_path):
    model, ids = make_model(VARIANTS["base"]), random_ids(VARIANTS["base"])
    _, cache = model.extend(ids)
    asked = ids.clone()
    ids += 1
    for copy in (cache, deepcopy(cache), cache.clone(), cache.map(lambda t: t.float())):
        assert copy.origin.model is model and torch.equal(copy.tokens, asked) and copy.tokens.dtype == asked.dtype
    assert torch.equal(cache.map(lambda t: t[1:]).tokens, asked[1:])
    stored = pickle.loads(pickle.dumps(cache))
    with pytest.raises(ValueError, match=r"give it, cache.save\(path, model\)"):
        stored.save(tmp_path / "x")
    assert zl.Cache.load(stored.save(tmp_path / "x", model), model).length == 19
