"""Laws of the metrics: every row, once, in order, however often the run was stopped; and the writers' view of them."""

import sys
from types import ModuleType

import pyarrow.parquet as pq
import pytest

from zamba_lab.train import read_metrics, tensorboard, trackio, wandb
from zamba_lab.train.metrics import Metrics


def row(step: int, **more) -> dict:
    return {"step": step, "loss": 1 / step, **more}


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
    metrics = Metrics(tmp_path, 0)
    for k in range(1, 5):
        metrics.add(row(k))
        if k % 2 == 0:
            metrics.flush()
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
    with pytest.raises(ModuleNotFoundError, match=f"need the package {name}, which is not installed: pip install {name}"):
        make("x")
