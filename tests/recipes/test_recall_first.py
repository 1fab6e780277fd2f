"""Recall first, then text: what is asked can be known, and the stages follow each other."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from zamba_lab.ops.loss import IGNORE
from zamba_lab.recipes import recall_first
from zamba_lab.train.metrics import read_metrics
from zamba_lab.train.mixture import Mixture
from zamba_lab.train.schedules import Constant

TINY = replace(recall_first.MODEL, vocab_size=96, d_model=16, n_layers=4, hybrid_layers=(1, 3), attn_heads=2, headdim=8, d_mlp=16)
TINY = replace(TINY, max_context=64, lora_rank=2)
QUICK = [
    replace(config, steps=2, batch=5, length=min(config.length, 64), schedule=Constant(warmup=1), evaluate_every=2)
    for config in recall_first.CONFIGS
]
TOKENS = np.random.default_rng(0).integers(3, 96, 600)


@pytest.mark.parametrize("any_role", [True, False])
def test_each_answer_followed_its_key_before_and_is_the_only_one(any_role):
    ids, labels = recall_first.recall(np.random.default_rng(1), 20, 48, 8, 64, any_role)
    assert ids.min() >= recall_first.SPECIAL and ids.max() < recall_first.SPECIAL + 64
    for row, asked in zip(ids.tolist(), labels.tolist()):
        known: dict[int, int] = {}
        for at in range(0, 48, 2):
            key, value = row[at], row[at + 1]
            assert known.setdefault(key, value) == value
            assert asked[at] == (value if at >= 16 else IGNORE) and asked[at + 1] == IGNORE
        assert len(known) == 8
        if any_role:
            assert not known.keys() & set(known.values())
        else:
            assert max(known) < recall_first.SPECIAL + 32 <= min(known.values())


def test_joined_rows_are_text_with_every_token_asked_and_recall_by_itself():
    data = recall_first.stages(Mixture({"code": TOKENS}), TINY, QUICK)[3].data
    ids, labels = data.make(0, 1, 5)
    text = np.lib.stride_tricks.sliding_window_view(TOKENS, 64)
    for row in ids[:1].numpy():
        assert (text == row).all(1).any()
    assert torch.equal(labels[:1, :-1], ids[:1, 1:])
    assert (ids[1:, 0] == TINY.bos_token_id).all() and (ids[1:, 1:] >= recall_first.SPECIAL).all()
    for row, asked in zip(ids[1:].tolist(), labels[1:].tolist()):
        known = dict(zip(row[1:17:2], row[2:18:2]))
        assert [asked[at] for at in range(17, 64, 2)] == [known[row[at]] for at in range(17, 64, 2)]
    again, _ = data.make(0, 1, 5)
    assert torch.equal(ids, again) and not torch.equal(ids, data.make(0, 2, 5)[0])


def test_stages_follow_each_other_and_measure_the_path(tmp_path):
    plan = recall_first.stages(Mixture({"code": TOKENS}), TINY, [replace(config, max_epochs=None) for config in QUICK])
    model = recall_first.follow(recall_first.start(TINY), plan, tmp_path, measure=recall_first.probe(TOKENS, 2, 32))
    for stage in plan:
        row = read_metrics(tmp_path / stage.name)[-1]
        assert row["step"] == 2 and 0 <= row["induction"] <= 1 and {"invocation 0", "invocation 1", "every invocation"} <= row.keys(), row
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    again = recall_first.follow(recall_first.start(TINY), plan, tmp_path)  # all is done: nothing is trained again
    assert all(torch.equal(value, weights[name]) for name, value in again.state_dict().items())
