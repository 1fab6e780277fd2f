"""Arms: every axis makes the model it says, and what cannot be had is refused with its line."""

from dataclasses import replace

import pytest
from ablate.tiny import BASE, TRAIN, WIDE, Before, study

from zamba_lab.ablate import AXES, Study, read_study
from zamba_lab.ablate.arms import StudyError, arms_of, changed

LEVELS = {
    ("mixer", "mamba1"): dict(mixer="mamba1"),
    ("sharing", 0): dict(n_shared_blocks=0),
    ("sharing", 1): dict(n_shared_blocks=1),
    ("sharing", "AABB"): dict(block_order=(0, 0, 1, 1)),
    ("sharing", "ABBB"): dict(block_order=(0, 1, 1, 1)),
    ("sharing", "unshared"): dict(n_shared_blocks=4),
    ("sharing", "transformer"): dict(mixer="attention", n_shared_blocks=0, lora_rank=0),
    ("lora_rank", 0): dict(lora_rank=0),
    ("lora_rank_qkv", 4): dict(lora_rank_qkv=4),
    ("concat", False): dict(concat_embedding=False),
    ("period", 4): dict(hybrid_layers=(3, 7)),
    ("period", 8): dict(hybrid_layers=(7,), n_shared_blocks=1),
    ("placement", "first"): dict(hybrid_layers=(0, 1, 2, 3)),
    ("placement", "last"): dict(hybrid_layers=(4, 5, 6, 7)),
    ("placement", (0, 7)): dict(hybrid_layers=(0, 7)),
    ("rope", False): dict(rope_theta=None),
    ("d_state", 8): dict(d_state=8),
    ("conv", False): dict(d_conv=0),
    ("link", "stream"): dict(link_into="stream"),
    ("attention_scale", "usual"): dict(attn_gain=0.5**0.5),
    ("attention_scale", 2): dict(attn_gain=2.0),
    ("norm_grouping", "heads"): dict(norm_groups=4),
    ("link_gain", 1.0): dict(link_gain=1.0),
    ("init", "reference"): dict(init="reference"),
}


@pytest.mark.parametrize("axis, level", LEVELS, ids=str)
def test_a_level_is_a_replace(axis, level):
    assert changed(WIDE, axis, level) == replace(WIDE, **LEVELS[axis, level])


def test_every_axis_is_covered_above():
    assert {axis for axis, _ in LEVELS} >= set(AXES)


def test_the_base_level_of_an_axis_is_the_base_and_grids_add_only_what_is_new():
    found = arms_of(
        WIDE,
        {"rope": [True, False], "d_state": [4, 8]},
        {"both": {"sharing": "AABB", "lora_rank": 0}},
        [{"rope": [True, False], "d_state": [4, 8]}],
    )
    assert [(arm.name, arm.family) for arm in found] == [
        ("base", "base"),
        ("rope=off", "rope"),
        ("d_state=8", "d_state"),
        ("rope=off, d_state=8", "rope x d_state"),
        ("both", "arms"),
    ]


REFUSED = {
    "no such axis: 'rotary'": {"rotary": [1]},
    "AABB differs from ABAB from 4 invocations on: the base has 1": {"sharing": ["AABB"]},
    "an order names the block of each invocation: got 'AAB' for 1": {"sharing": ["AAB"]},
    "n_shared_blocks must be at most the number of invocations": {"sharing": [3]},
    "an axis takes a list of levels, at least one: got 4": {"d_state": 4},
    "the axis is a switch, on or off: got 'yes'": {"rope": ["yes"]},
    "period must be a number of layers in 1..2": {"period": [3]},
    "headdim must divide d_inner": {"headdim": [5]},
    "arm 'd_state=8' is the same model as 'd_state=8'": {"d_state": [8, 8]},
}


@pytest.mark.parametrize("message, axes", REFUSED.items())
def test_an_arm_that_cannot_be_had_is_refused(message, axes):
    with pytest.raises(StudyError) as error:
        arms_of(BASE, axes, {}, [])
    assert message in str(error.value) and error.value.place[:2] == ("axes", next(iter(axes)))


def test_a_switch_without_an_effect_is_no_arm():
    pure = replace(BASE, n_shared_blocks=0)
    with pytest.raises(StudyError, match="'no adapters' is the same model as 'base'"):
        arms_of(pure, {}, {"no adapters": {"lora_rank": 0}}, [])


FILE = """\
name: of-a-file
base:
  d_model: 16
  n_layers: 2
  headdim: 8
  n_shared_blocks: 1
  hybrid_layers: [1]
  attn_heads: 2
  d_mlp: 16
task: {from: "ablate.tiny:Before", length: 9}
train:
  steps: 6
  batch: 4
  lr: 3e-3
  schedule: "wsd(warmup=2, decay=0.5)"
seeds: 3
axes:
  rope: [on, off]
  d_state:
    - 64
    - 8
arms:
  no adapters, usual scale: {lora_rank: 0, attention_scale: usual}
match: {by: params, tolerance: 0.02}
claims:
  - {text: "memory matters", arm: "d_state=8", direction: less, threshold: 0.1}
"""


def test_a_file_is_the_same_study_as_python(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(FILE)
    found = read_study(file, ["ablate.tiny:Before"])
    assert [arm.name for arm in found.every_arm] == ["base", "rope=off", "d_state=8", "no adapters, usual scale"]
    assert found.base.vocab_size == 11 and found.train.length == 9 and found.train.lr == 3e-3 and found.seeds == (0, 1, 2)
    assert found.match.tolerance == 0.02 and found.claims[0].threshold == 0.1
    as_json = tmp_path / "study.json"
    import json

    import yaml

    as_json.write_text(json.dumps(yaml.safe_load(FILE.replace("3e-3", "0.003")), indent=1))
    assert read_study(as_json, ["ablate.tiny:Before"]) == found


WRONG = {
    ("  rope: [on, off]", "  rotary: [on, off]"): (18, "no such axis: 'rotary'"),
    ("    - 8", "    - eight"): (21, "d_state must be an integer"),
    ("{lora_rank: 0, att", "{lora_rank: -1, att"): (23, "lora_rank must be an integer of 0 or more: got -1"),
    ("headdim: 8", "headdim: 7"): (2, "headdim must divide d_inner"),
    ("  lr: 3e-3", "  rate: 3e-3"): (11, "no such training argument: rate"),
    ("seeds: 3", "seeds: [1, 1]"): (16, "different integers"),
    ("by: params", "by: weight"): (24, "arms are matched by params, flops, state: got 'weight'"),
    ('arm: "d_state=8"', 'arm: "d_state=9"'): (26, "a claim is about arms of the study: no 'd_state=9'"),
    ("direction: less", "direction: fewer"): (26, "direction of a claim must be one of more, less, equal"),
    ("seeds: 3", "rounds: 3"): (16, "no such key of a study: 'rounds'"),
    ("ablate.tiny:Before", "ablate.tiny:After"): (10, "no task there"),
    ("seeds: 3", "name: again"): (16, "repeats 'name', first in line 1"),
    ("seeds: 3", "seeds: ["): (18, "must be YAML or JSON"),
    ("  lr: 3e-3", "  seed: 3"): (14, "seeds the seeds"),
}


@pytest.mark.parametrize("change", WRONG, ids=lambda change: change[1])
def test_what_does_not_fit_is_refused_with_its_line(change, tmp_path):
    line, message = WRONG[change]
    file = tmp_path / "study.yaml"
    assert FILE.count(change[0]) == 1
    file.write_text(FILE.replace(*change))
    with pytest.raises(ValueError) as error:
        read_study(file, ["ablate.tiny:Before", "ablate.tiny:After"])
    assert str(error.value).startswith(f"{file}:{line}:") and message in str(error.value)


def test_rates_are_chosen_on_seeds_of_their_own():
    with pytest.raises(ValueError, match=r"in both are \[1\]"):
        study(rates=(1e-3,), tuning_seeds=(1, 7))


def test_the_base_takes_the_tasks_tokens_and_the_training_its_length():
    made = Study("x", replace(BASE, vocab_size=99), Before(length=5), TRAIN)
    assert made.base.vocab_size == 11 and made.train.length == 5
