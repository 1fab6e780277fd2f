"""Training on batches that bring their own labels, measured and stopped as the caller says."""

import pytest
import torch
from train.tiny import TINY, tiny_model

from zamba_lab.train import Labelled, TrainConfig, read_metrics, train
from zamba_lab.train.files import checkpoints

CONFIG = TrainConfig(steps=6, batch=4, length=8, lr=1e-2, schedule="constant", evaluate_every=2, checkpoint_every=3)


def make(seed: int, step: int, n: int):
    """Say the token before; asked at every second position."""
    generator = torch.Generator().manual_seed(1000 * seed + step)
    ids = torch.randint(3, TINY.vocab_size, (n, 8), generator=generator)
    labels = torch.full_like(ids, -100)
    labels[:, 1::2] = ids[:, :-1:2]
    return ids, labels


DATA = Labelled(make, 8, {"task": "before"})


def test_the_loss_is_that_of_the_labels_where_something_is_asked(tmp_path):
    model = tiny_model()
    ids, labels = make(0, 0, 4)
    wanted = torch.nn.functional.cross_entropy(model(ids).flatten(0, 1), labels.flatten(), ignore_index=-100)
    train(model, DATA, CONFIG, tmp_path)
    assert read_metrics(tmp_path)[0]["loss"] == pytest.approx(float(wanted.detach()), rel=1e-5)


def test_a_run_ends_where_it_is_told_and_a_second_call_adds_nothing(tmp_path):
    calls = []

    def measure(model, step):
        assert not model.training
        calls.append(step)
        return {"score": step}

    def enough(row):
        return row.get("score", 0) == 4

    one = train(tiny_model(), DATA, CONFIG, tmp_path, measure=measure, until=enough)
    assert calls == [2, 4] and [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4]
    assert checkpoints(tmp_path)[-1][0] == 4
    again = train(tiny_model(seed=1), DATA, CONFIG, tmp_path, measure=measure, until=enough)
    assert calls == [2, 4]
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), again.state_dict().values()))


def test_another_length_or_documents_are_refused(tmp_path):
    from dataclasses import replace

    with pytest.raises(ValueError, match="length=9, the data's is 8"):
        train(tiny_model(), DATA, replace(CONFIG, length=9), tmp_path)
    with pytest.raises(ValueError, match="documents=True"):
        train(tiny_model(), DATA, replace(CONFIG, documents=True), tmp_path)


def test_a_loss_that_is_no_number_names_the_sequences(tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model.embedding.weight[:] = float("nan")
    with pytest.raises(FloatingPointError, match="sequence 0 of step 1: loss nan"):
        train(model, DATA, CONFIG, tmp_path)
