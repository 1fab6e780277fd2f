"""Sweeps: every cell once, whoever runs it and whatever is killed; what cannot go on stops and says why."""

import io
import os
import signal
import sys
import time

import pytest
import torch
from ablate.tiny import Wrong, study

from zamba_lab.ablate import Live, Quiet, Store, SweepStopped, live, plan, run, run_cell, runner
from zamba_lab.ablate.runner import Worker, outcome


class Line:
    """What a worker speaks into."""

    def __init__(self):
        self.words = []

    def send(self, word):
        self.words.append(word)


class Killer(Quiet):
    """Kills the worker of the first cell that says something."""

    def __init__(self):
        self.killed, self.ended = [], []

    def row(self, planned, row):
        if not self.killed:
            worker = next(one for one in TEAM if one.cell is planned)
            self.killed.append(planned.cell.address)
            os.kill(worker.process.pid, signal.SIGKILL)

    def done(self, planned, status):
        self.ended.append(planned.cell.address)


TEAM: list[Worker] = []


class Known(Worker):
    def __init__(self, *arguments):
        super().__init__(*arguments)
        TEAM.append(self)


@pytest.fixture
def team(monkeypatch):
    """The workers of the sweep, in TEAM."""
    TEAM.clear()
    monkeypatch.setattr(runner, "Worker", Known)


def alone(cell, folder):
    """The hash of a cell's outcome, of a run that nothing happens to."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = run_cell(cell, folder)[0]["outcome_sha256"]
    torch.set_num_threads(threads)
    return found


def test_a_sweep_whose_worker_is_killed_runs_each_cell_once_to_the_same_bits(tmp_path, monkeypatch, team):
    tiny, show = study(), Killer()
    todo = run(tiny, tmp_path / "store", workers=2, show=show)
    store = Store(tmp_path / "store")
    assert len(show.killed) == 1 and sorted(show.ended) == sorted(one.cell.address for one in todo.cells)
    assert todo.left(store) == [] and not list((store.folder / "work").iterdir())
    killed = next(one.cell for one in todo.cells if one.cell.address == show.killed[0])
    assert store.records([killed.address])[killed.address]["outcome_sha256"] == alone(killed, tmp_path / "alone")
    monkeypatch.setattr(runner, "Worker", None)  # nothing is left to run, so nobody is called
    assert run(tiny, tmp_path / "store", show=Quiet()).cells == todo.cells


class Filling(Quiet):
    """Lets the workers write no file of more than so many bytes once the first cell is done; notes which that was."""

    def __init__(self, room):
        self.room, self.ended = room, []

    def done(self, planned, status):
        import resource

        self.ended.append(planned.cell.address)
        for worker in TEAM:
            resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, (self.room, resource.RLIM_INFINITY))


@pytest.mark.skipif(sys.platform != "linux", reason="limits what another process may write")
def test_a_disk_that_is_full_in_the_middle_of_a_sweep_stops_it_and_with_room_again_goes_on(tmp_path, team):
    tiny, show = study(), Filling(room=100_000)  # a checkpoint of step 0 has 54,000 bytes, later ones have more
    with pytest.raises(OSError, match="the sweep stops, its store is complete: .*the checkpoint of step 2 could not be written"):
        run(tiny, tmp_path / "store", workers=1, show=show)
    assert not any(worker.process.is_alive() for worker in TEAM)
    store = Store(tmp_path / "store")
    assert [row["address"] for row in store.query()] == show.ended and len(show.ended) == 1
    assert not list(store.folder.rglob("*.part")) and len(list(store.folder.rglob("checkpoint-000000000-*"))) == 1
    second = plan(tiny).cells[1].cell  # there is room again
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    assert outcome(second, store, Line()) == ("done", "unsolved") and not list((store.folder / "work").iterdir())
    torch.set_num_threads(threads)
    assert store.records([second.address])[second.address]["outcome_sha256"] == alone(second, tmp_path / "alone")


def test_two_at_one_cell_run_it_once(tmp_path):
    store, cell = Store(tmp_path / "store"), plan(study()).cells[0].cell
    with store.claim(cell.address):
        assert outcome(cell, Store(store.folder), Line()) == ("busy", None)
    assert outcome(cell, store, Line()) == ("done", "unsolved")
    assert outcome(cell, Store(store.folder), Line()) == ("done", "unsolved")


def test_a_busy_cell_is_asked_for_again_until_it_is_done(tmp_path, monkeypatch):
    """The other runner is this process, which holds the claim for a while and then finishes the cell."""
    monkeypatch.setattr(runner, "PATIENCE", 0.1)
    store, one = Store(tmp_path / "store"), plan(study(seeds=(0,), axes={})).cells[0]
    waits = []

    class Held:
        cell = None

        def give(self, planned):
            self.cell = planned

    def told(workers, seconds):
        if workers[0].cell is not None:
            waits.append(time.monotonic())
            yield workers[0], *(("busy", None) if len(waits) < 3 else ("done", "unsolved"))

    monkeypatch.setattr(runner, "reports", told)
    runner.sweep(store, [one], [Held()], Quiet())
    assert len(waits) == 3 and waits[2] - waits[0] >= 0.2


def test_a_full_disk_stops_the_sweep_and_a_cell_that_fails_says_which(tmp_path, monkeypatch):
    store, one = Store(tmp_path / "store"), plan(study()).cells[0]
    monkeypatch.setattr(Store, "add", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    kind, why = outcome(one.cell, store, Line())
    assert kind == "full" and "No space left" in why and store.query() == []
    with pytest.raises(OSError, match="the sweep stops, its store is complete.*No space left"):
        raise runner.stopped(one, kind, why)
    with monkeypatch.context() as no_room_for_a_claim:
        no_room_for_a_claim.setattr(Store, "claim", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        assert outcome(one.cell, store, Line()) == ("full", "[Errno 28] No space left on device")
    kind, why = outcome(plan(study(task=Wrong())).cells[0].cell, store, Line())
    assert kind == "failed"
    with pytest.raises(SweepStopped, match=r"arm 'base', seed 0\) failed: ValueError: ids must lie in 0..10"):
        raise runner.stopped(one, kind, why)
    with pytest.raises(SweepStopped, match="its worker died 3 times, the last time with exit status -9"):
        raise runner.stopped(one, "died", -9)


def test_rates_are_chosen_before_the_cells_that_count(tmp_path):
    tiny, store = study(rates=(1e-3, 3e-2), tuning_seeds=(7,)), Store(tmp_path / "store")
    first = plan(tiny, store)
    assert all(one.tuning and one.seed == 7 for one in first.cells) and len(first.cells) == 4
    assert first.waiting == ("base", "conv=off")
    for one in first.left(store):
        outcome(one.cell, store, Line())
    second = plan(tiny, store)
    assert second.waiting == () and len(second.left(store)) == 4 and {one.seed for one in second.left(store)} == {0, 1}
    for arm, tried in second.tried.items():
        assert second.rates[arm] == min(tried, key=lambda rate: (-tried[rate]["solved"], tried[rate]["loss"]))
        assert {one.cell.train.lr for one in second.left(store) if one.arm == arm} == {second.rates[arm]}


def test_a_plan_of_one_study_does_not_run_again_what_another_has_run(tmp_path):
    store = Store(tmp_path / "store")
    for one in plan(study(axes={})).cells:
        outcome(one.cell, store, Line())
    assert {one.arm for one in plan(study(name="another"), store).left(store)} == {"conv=off"}


def test_the_table_says_what_runs_what_is_done_and_when_all_will_be(monkeypatch):
    out, todo = io.StringIO(), plan(study())
    out.isatty = lambda: True
    show = Live(out)
    show.begin(todo, {todo.cells[0].cell.address: "diverged"}, 2)
    show.row(todo.cells[2], {"step": 1, "loss": 2.0, "accuracy": None})
    show.row(todo.cells[2], {"step": 3, "loss": 1.5, "accuracy": 0.25})
    show.drawn = 0
    show.draw()
    assert "1 of 4 cells on 2 workers" in out.getvalue() and "at most" in out.getvalue()
    assert "seed 0: 3/6 loss 1.500 acc 0.25" in out.getvalue()
    show.done(todo.cells[2], "solved")
    assert show.rows()[2] == ["conv=off", "1/2", "1", "0", ""] and show.eta() > 0


class Tables(Live):
    """Keeps the table at the beginning of each sweep, and its rows as they are at its end."""

    def __init__(self):
        super().__init__(io.StringIO())
        self.at_begin, self.at_end = [], []

    def begin(self, *arguments):
        super().begin(*arguments)
        self.at_begin.append(self.rows())

    def end(self):
        super().end()
        self.at_end.append(self.rows())


def test_a_resumed_sweep_counts_stored_cells_as_what_they_are(tmp_path):
    """Also those of the tuning before, and those that another runner finishes meanwhile."""
    tiny, store = study(solved=0.0001, rates=(1e-2,), tuning_seeds=(7,)), Store(tmp_path / "store")
    show = Tables()
    run(tiny, store.folder, workers=1, show=show)
    begun, ended = show.at_begin[-1], show.at_end[-1]
    assert [row[1:4] for row in begun[1:]] == [["1/3", "1", "0"], ["1/3", "1", "0"]], "the cell that chose the rate is solved"
    assert [row[1:4] for row in ended[1:]] == [["3/3", "3", "0"], ["3/3", "3", "0"]]
    show = Tables()
    more = study(solved=0.0001, rates=(1e-2,), tuning_seeds=(7,), seeds=(0, 1, 2))
    show.begin(plan(more, store), store.statuses(), 1)
    assert [row[1:4] for row in show.rows()[1:]] == [["3/4", "3", "0"], ["3/4", "3", "0"]]
    finished = plan(tiny, store).cells[0].cell
    assert outcome(finished, store, Line()) == ("done", "solved")


@pytest.mark.parametrize("terminal", [True, False])
def test_an_arm_whose_attention_starts_too_quiet_is_named_as_soon_as_a_cell_reports(terminal):
    out, todo = io.StringIO(), plan(study())
    out.isatty = lambda: terminal
    show = Live(out)
    show.begin(todo, {}, 2)
    show.row(todo.cells[0], {"step": 1, "loss": 2.0, "link_shares": [0.4, 1.9]})
    show.row(todo.cells[2], {"step": 1, "loss": 2.0, "link_shares": [1.0, 0.25]})
    show.end()
    assert out.getvalue().count("(!)") == 1 and "attention starts too quiet" in out.getvalue()
    assert show.rows()[2][4].endswith("(!) attention starts too quiet") and "(!)" not in show.rows()[1][4]


def test_a_cell_reports_how_loud_its_attention_starts_from_the_first_row(tmp_path):
    line, cell = Line(), plan(study()).cells[0].cell
    outcome(cell, Store(tmp_path / "store"), line)
    kept = Store(tmp_path / "store").records([cell.address])[cell.address]["link_shares"]
    assert len(kept) == 1 and {tuple(row["link_shares"]) for _, row in line.words} == {tuple(kept)}


def test_in_a_notebook_the_table_is_updated_in_place(monkeypatch):
    import IPython.display

    class Handle:
        pages: list[str] = []

        def update(self, page):
            self.pages.append(page.data)

    monkeypatch.setattr(live, "in_notebook", lambda: True)
    monkeypatch.setattr(IPython.display, "display", lambda page, display_id: Handle.pages.append(page.data) or Handle())
    show, todo = Live(io.StringIO()), plan(study())
    show.begin(todo, {}, 2)
    show.done(todo.cells[0], "solved")
    show.end()
    assert len(Handle.pages) == 2 and "<td style='text-align:left'>0/2</td>" in Handle.pages[0]
    assert "<td style='text-align:left'>1/2</td>" in Handle.pages[1] and show.out.getvalue() == ""
