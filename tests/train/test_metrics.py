"""Laws of the metrics: every row, once, in order, however often the run was stopped; and the writers' view of them."""

import os
import sys
from types import ModuleType

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from zamba_lab.train import read_metrics, tensorboard, trackio, wandb
from zamba_lab.train.metrics import Metrics, plain_values


def row(step: int, **more) -> dict:
    return {"step": step, "loss": 1 / step, **more}


def write_in_twos(folder, count: int) -> None:
    metrics = Metrics(folder, 0)
    for step in range(1, count + 1):
        metrics.add(row(step))
        if step % 2 == 0:
            metrics.flush()


def test_rows_come_back_with_what_was_not_measured_as_none(tmp_path):
    assert read_metrics(tmp_path) == []
    metrics = Metrics(tmp_path, 0)
    for step in range(1, 6):
        metrics.add(row(step, **({"bits": 2.5} if step == 4 else {})))
        if step in (2, 5):
            metrics.flush()
    found = read_metrics(tmp_path)
    assert [one["step"] for one in found] == [1, 2, 3, 4, 5] and [one["bits"] for one in found] == [None, None, None, 2.5, None]
    assert [one["loss"] for one in found] == [1 / k for k in range(1, 6)], "floats are not rounded"


@pytest.mark.parametrize("step", [0, 1, 2, 3, 4, 9])
def test_opened_at_a_step_it_holds_the_rows_up_to_it(tmp_path, step):
    write_in_twos(tmp_path, 4)
    again = Metrics(tmp_path, step)
    assert [one["step"] for one in read_metrics(tmp_path)] == list(range(1, min(step, 4) + 1))
    again.add(row(step + 1))
    again.flush()
    assert [one["step"] for one in read_metrics(tmp_path)][-1] == step + 1


def test_a_half_written_file_is_not_read_and_goes_away(tmp_path):
    metrics = Metrics(tmp_path, 0)
    metrics.add(row(1))
    metrics.flush()
    part = tmp_path / "metrics" / "000000002-000000003.part"
    part.write_bytes(b"PAR1")
    assert len(read_metrics(tmp_path)) == 1
    Metrics(tmp_path, 1)
    assert not part.exists() and len(read_metrics(tmp_path)) == 1


def test_it_is_parquet_for_everybody(tmp_path):
    metrics = Metrics(tmp_path, 0)
    metrics.add(row(1, sample="def x"))
    metrics.flush_if_possible()
    table = pq.read_table(tmp_path / "metrics")
    assert table.to_pydict() == {"step": [1], "loss": [1.0], "sample": ["def x"]}


# --- writers ---------------------------------------------------------------------------------------------------------


def stand_in(monkeypatch, name: str, **members) -> None:
    module = ModuleType(name)
    vars(module).update(members)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize("make, name", [(trackio, "trackio"), (wandb, "wandb")])
def test_a_logged_row_is_what_was_measured_at_its_step(monkeypatch, make, name):
    said = []
    stand_in(monkeypatch, name, init=lambda **given: said.append(given), log=lambda values, step: said.append((step, values)))
    write = make("project", "a", mode="offline")
    assert not said, "a run that is refused before its first row is begun nowhere"
    write(row(4, bits=None, sample="x"))
    write(row(5))
    assert said == [{"project": "project", "name": "a", "mode": "offline"}, (4, {"loss": 0.25, "sample": "x"}), (5, {"loss": 0.2})]


def test_tensorboard_reads_back_scalars_and_texts_at_their_steps(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    write = tensorboard(tmp_path)
    for step in (1, 2, 4):
        write(row(step, bits=None, sample="x" * step))
    board = EventAccumulator(str(tmp_path)).Reload()
    assert board.Tags()["scalars"] == ["loss"], "what was not measured is left out"
    assert [(one.step, one.value) for one in board.Scalars("loss")] == [(1, 1.0), (2, 0.5), (4, 0.25)]
    (text,) = board.Tags()["tensors"]
    assert [one.tensor_proto.string_val[0].decode() for one in board.Tensors(text)] == ["x", "xx", "xxxx"]


def test_tensorboard_shows_a_step_that_is_made_again_once(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for first in (1, 3):  # killed after step 4, gone on with after step 2
        write = tensorboard(tmp_path)
        for step in range(first, first + 4):
            write(row(step))
    assert [one.step for one in EventAccumulator(str(tmp_path)).Reload().Scalars("loss")] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("make, name", [(tensorboard, "tensorboard"), (trackio, "trackio"), (wandb, "wandb")])
def test_a_library_that_is_missing_is_named(monkeypatch, make, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=f"needs {name}, which is not installed: pip install {name}"):
        make("x")


# --- any measure -----------------------------------------------------------------------------------------------------

MEASURES = {
    "0, then 0.5": ([0, 0.5], [0, 0.5]),
    "0.5, then 0": ([0.5, 0], [0.5, 0]),
    "True, then 0.5": ([True, 0.5], [1, 0.5]),
    "an int beyond 64 bits": ([1, 2**70], [1, 2.0**70]),
    "torch": ([torch.tensor(0), torch.tensor(0.5, dtype=torch.bfloat16)], [0, 0.5]),
    "with a gradient": ([torch.tensor(0.5, requires_grad=True), torch.ones(())], [0.5, 1]),
    "numpy": ([np.int64(3), np.float32(0.5)], [3, 0.5]),
    "vectors": ([torch.arange(3), np.ones(2)], [[0, 1, 2], [1, 1]]),
    "none, then some": ([None, 0.5], [None, 0.5]),
    "nothing": ([None, None], [None, None]),
    "texts": (["a", "b"], ["a", "b"]),
    "a number, then a text": ([1, "b"], None),
}


@pytest.mark.parametrize("together", [True, False], ids=["in one file", "in two"])
@pytest.mark.parametrize("name", MEASURES)
def test_whatever_is_measured_is_read_back(tmp_path, name, together):
    values, expected = MEASURES[name]
    metrics = Metrics(tmp_path, 0)
    for step, value in enumerate(values, 1):
        metrics.add(row(step, **plain_values({"x": value})))
        if not together:
            metrics.flush()
    metrics.flush()
    found = [one["x"] for one in read_metrics(tmp_path)]
    if expected is None:
        assert found == (["1", "b"] if together else [1, "b"])
    else:
        assert found == expected
    assert [one["loss"] for one in read_metrics(tmp_path)] == [1.0, 0.5]


@pytest.mark.parametrize("wrong", [{"x": object()}, {"x": {"a": 1}}, {"x": torch.ones(2, 2)}, {3: 1.0}, {"x": 1j}])
def test_what_no_file_could_hold_is_refused_by_name(wrong):
    with pytest.raises(ValueError, match="a measure has a name and is a number, a text or a list of them: got"):
        plain_values(wrong)


@pytest.mark.parametrize("size", [0, 10, 400])
def test_a_truncated_file_costs_its_own_rows_and_is_said(tmp_path, size):
    write_in_twos(tmp_path, 6)
    os.truncate(tmp_path / "metrics" / "000000003-000000004.parquet", size)
    with pytest.warns(UserWarning, match="000000003-000000004.parquet cannot be read, and its rows are left out"):
        assert [one["step"] for one in read_metrics(tmp_path)] == [1, 2, 5, 6]
    with pytest.warns(UserWarning, match="cannot be read"):
        again = Metrics(tmp_path, 3)
    assert [one["step"] for one in read_metrics(tmp_path)] == [1, 2]
    again.add(row(4))
    again.flush()
    assert [one["step"] for one in read_metrics(tmp_path)] == [1, 2, 4] and again.last()["step"] == 4


def test_files_that_are_no_rows_of_a_run_are_left_alone(tmp_path):
    metrics = Metrics(tmp_path, 0)
    metrics.add(row(1))
    metrics.flush()
    (tmp_path / "metrics" / "notes.parquet").write_bytes(b"mine")
    assert len(read_metrics(tmp_path)) == 1 and Metrics(tmp_path, 0).folder.joinpath("notes.parquet").exists()
