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


def test_another_length_is_refused(tmp_path):
    from dataclasses import replace

    with pytest.raises(ValueError, match="length=9, the data's is 8"):
        train(tiny_model(), DATA, replace(CONFIG, length=9), tmp_path)


def test_a_loss_that_is_no_number_names_the_sequences(tmp_path):
    model = tiny_model()
    with torch.no_grad():
        model.embedding.weight[:] = float("nan")
    with pytest.raises(FloatingPointError, match="sequence 0 of step 1: loss nan"):
        train(model, DATA, CONFIG, tmp_path)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_step_without_a_target_is_called_that_and_keeps_the_checkpoint(tmp_path, accumulate):
    """Not a loss of 0 / 0, whose blame would fall on the learning rate."""

    def silent(seed: int, step: int, n: int):
        ids, labels = make(seed, step, n)
        return ids, labels if step != 4 else torch.full_like(labels, -100)

    config = TrainConfig(steps=6, batch=4, length=8, accumulate=accumulate, schedule="constant", checkpoint_every=3)
    with pytest.raises(ValueError, match="step 5 of 6 cannot be made: a step needs a target: all labels at its 32 positions are -100"):
        train(tiny_model(), Labelled(silent, 8, {}), config, tmp_path)
    assert checkpoints(tmp_path)[-1][0] == 3 and len(read_metrics(tmp_path)) == 4
    assert "needs a target" in (tmp_path / "run.log").read_text()


def test_a_micro_batch_without_a_target_has_no_part_in_the_step(tmp_path):
    from zamba_lab.train.step import gradient

    model, (ids, labels) = tiny_model(), make(0, 0, 4)
    half = torch.cat([labels[:2], torch.full_like(labels[2:], -100)])
    joined, split = (gradient(model, pairs) for pairs in ([(ids, half)], list(zip(ids.split(2), half.split(2)))))
    assert float(joined) == pytest.approx(float(split), rel=1e-6)


@pytest.mark.parametrize(
    "change",
    [lambda ids, labels: (ids, labels.int()), lambda ids, labels: (ids[:, :7], labels[:, :7]), lambda ids, labels: (ids[:2], labels)],
)
def test_batches_of_another_shape_or_kind_are_refused(tmp_path, change):
    with pytest.raises(ValueError, match=r"make must give ids and labels of shape \(4, 8\), int64"):
        train(tiny_model(), Labelled(lambda *arguments: change(*make(*arguments)), 8, {}), CONFIG, tmp_path)
