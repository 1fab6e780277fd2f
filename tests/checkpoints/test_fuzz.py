"""Mutated checkpoints are refused with a CheckpointError or open whole; `make test-long` tries far more of them."""

import json
from dataclasses import fields
from random import Random

import fuzzing
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zamba_lab.config import ZambaConfig


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> dict[str, fuzzing.Files]:
    return fuzzing.sound(tmp_path_factory.mktemp("sound"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("mutated") / "checkpoint"


def test_the_sound_ones_open(sound, folder):
    assert {name: fuzzing.outcome(files, folder) for name, files in sound.items()} == dict.fromkeys(sound, "opened")


@pytest.mark.parametrize(
    "file", ["config.json", "model.safetensors.index.json", "model.safetensors", "pytorch_model.bin", "tokenizer.json"]
)
@settings(max_examples=60)
@given(which=st.integers(0, 10**6), seed=st.integers(0, 2**32))
def test_a_mutated_file_is_refused_or_opens_whole(sound, folder, file, which, seed):
    there, random = [name for name in sorted(sound) if file in sound[name]], Random(seed)
    files = sound[there[which % len(there)]]
    structure = fuzzing.mutate_pickle if file == fuzzing.PICKLED else fuzzing.mutate_structure
    change = random.choice([structure, fuzzing.mutate_bytes])
    fuzzing.outcome(files | {file: change(files[file], random)}, folder)


KEYS = sorted({*fuzzing.KEYS, *(f.name for f in fields(ZambaConfig))})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200)
@given(which=st.integers(0, 10**6), changes=st.dictionaries(st.sampled_from(KEYS), JSON, min_size=1, max_size=2))
def test_any_value_under_any_key_of_a_config(sound, folder, which, changes):
    files = sound[sorted(sound)[which % len(sound)]]
    raw = json.loads(files["config.json"]) | changes
    fuzzing.outcome(files | {"config.json": json.dumps(raw).encode()}, folder)


@pytest.mark.parametrize("layer", [{}, [], ["Mamba2"], None, 3, "Mamba3"])
def test_a_kind_of_layer_that_is_none(sound, folder, layer):
    """Found by the long run: what cannot be a dict's key was looked up in one."""
    raw = json.loads(sound["original"]["config.json"]) | {"ssm_cfg": {"layer": layer}}
    assert fuzzing.outcome(sound["original"] | {"config.json": json.dumps(raw).encode()}, folder) == "refused"
