"""Two whole runs of one study in one store, each a process with a worker of its own: no cell is run twice.

Shown by what the cells themselves note of every step: which runner it was in, and in which process.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ablate.traced import FOLDER, LAST, PLACE, lines, six, traces

from zamba_lab.ablate import Quiet, Store, plan, run, run_cell, runner

TESTS = Path(__file__).resolve().parents[1]
OTHER = """
import sys
from ablate.traced import six
from zamba_lab.ablate import Quiet, run, runner

if __name__ == "__main__":
    runner.PATIENCE = 0.2
    run(six(), sys.argv[1], workers=1, show=Quiet())
"""


class Beside(Quiet):
    """What the runner in this process does at every turn: look at the other one."""

    def __init__(self, other: subprocess.Popen, look):
        self.other, self.look, self.killed = other, look, False

    def draw(self):
        assert self.killed or self.other.poll() in (None, 0), self.other.communicate()[1].decode()[-2000:]
        self.look(self)


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """Run `six` here and in another process; name: the other's place; look: called with `Beside` at every turn."""
    folder, script = tmp_path / "trace", tmp_path / "other.py"
    folder.mkdir()
    script.write_text(OTHER)
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
    for name, value in {FOLDER: str(folder), PLACE: "here", "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(runner, "PATIENCE", 0.2)
    begun = []

    def both(name, look):
        other = subprocess.Popen(
            [sys.executable, "-W", "ignore", str(script), str(tmp_path / "store")], env={**os.environ, PLACE: name}, stderr=subprocess.PIPE
        )
        begun.append(other)
        run(six(), tmp_path / "store", workers=1, show=Beside(other, look))
        return other, folder, Store(tmp_path / "store")

    yield both
    for other in begun:
        other.kill()
        other.communicate()


def test_two_runners_share_the_cells_and_run_each_once(beside):
    folder_of = lambda: Path(os.environ[FOLDER])

    def look(show):
        if {place for place, _ in traces(folder_of())} == {"here", "there"}:
            (folder_of() / "go").touch()

    other, folder, store = beside("there", look)
    assert other.wait(60) == 0
    assert {place for place, *_ in lines(folder)} == {"here", "there"}
    steps = [(seed, step) for _, seed, step, _ in lines(folder)]
    assert sorted(steps) == sorted((seed, step) for seed in range(6) for step in range(LAST + 1)), "every step is made once"
    assert len(store.query()) == 6 and not list(store.claims.iterdir()) and not list((store.folder / "work").iterdir())


def test_what_a_killed_runner_was_at_goes_on_in_the_other_and_each_cell_ends_once_with_the_same_bits(beside, tmp_path):
    def look(show):
        folder = Path(os.environ[FOLDER])
        if not show.killed and (folder / "go").exists():
            os.kill(show.other.pid, signal.SIGKILL)
            show.killed = show.other.wait() == -signal.SIGKILL
            (folder / "killed").touch()  # its worker goes on, finds nobody to speak to, and ends

    _, folder, store = beside("doomed", look)
    begun = traces(folder)
    (lost,) = (seed for (place, seed) in begun if place == "doomed" and ("here", seed) in begun)
    times = {seed: sum(steps.count(0) for (_, one), steps in begun.items() if one == seed) for seed in range(6)}
    assert times == dict.fromkeys(range(6), 1), "no cell begins twice"
    assert begun["here", lost] == [4, 5], "it goes on from the checkpoint of step 4"
    ends = {seed: [place for (place, one) in begun if one == seed] for seed in range(6)}
    assert sum(places == ["doomed"] for places in ends.values()) == 1 and len(ends[lost]) == 2
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    alone = {one.cell.address: run_cell(one.cell, tmp_path / str(one.seed))[0]["outcome_sha256"] for one in plan(six()).cells}
    torch.set_num_threads(threads)
    rows = store.query()
    assert len(rows) == 6 and {row["address"]: row["outcome_sha256"] for row in rows} == alone
