"""A sweep on Ray: two nodes of one processor each, one of which is killed while it is in the middle of a cell.

Shown with real nodes: both end cells; the cell that the dead node was at, and no other, is begun again; every cell is kept
once, by the process that holds the store; and all outcomes are those of a run without Ray, bit by bit.
"""

import os
import socket
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ablate.tiny import study
from ablate.traced import FOLDER, LAST, LIMIT, PLACE, lines, six, traces
from processes import python

from zamba_lab.ablate import Quiet, Store, SweepStopped, cluster, plan, run_cell, run_on_ray
from zamba_lab.ablate import cell as cells

TESTS = Path(__file__).resolve().parents[1]
PORTS = ("metrics_agent_port", "dashboard_agent_listen_port", "runtime_env_agent_port", "metrics_export_port")
# A node's helpers may take a minute to start on a busy machine; these are read by the processes of each node.
PATIENT = {"RAY_agent_register_timeout_ms": "300000", "RAY_worker_register_timeout_seconds": "300", "RAY_USAGE_STATS_ENABLED": "0"}
ALONE = plan(six()).cells


def free_ports() -> dict[str, int]:
    """A port for each helper of a node: for one it must find by itself a node waits 15 seconds, and then dies."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in PORTS]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return dict(zip(PORTS, (one.getsockname()[1] for one in sockets)))


@contextmanager
def two_nodes():
    """A cluster of two nodes of one processor each, and the node that may be killed."""
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1,
            "include_dashboard": False,
            "include_log_monitor": False,
            "env_vars": {PLACE: "stays"},
            **free_ports(),
        },
    )
    try:
        doomed = made.add_node(num_cpus=1, env_vars={PLACE: "doomed"}, **free_ports())
        ray.init(address=made.address, log_to_driver=False)
        yield made, doomed
    finally:
        ray.shutdown()
        made.shutdown()


class Killer(Quiet):
    """Kills a node once a cell waits in its middle there."""

    def __init__(self, made, node, folder):
        self.made, self.node, self.folder, self.ended, self.before = made, node, folder, [], None

    def draw(self):
        if self.before is None and (self.folder / "go").exists():
            self.before = list(self.ended)
            self.made.remove_node(self.node, allow_graceful=False)

    def done(self, planned, status):
        self.ended.append(planned.cell.address)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.fixture(autouse=True)
def one_thread():
    """Cells are run with one; the tests after these go on with what they had."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.filterwarnings("default")
def test_a_node_that_dies_loses_no_cell_and_changes_no_outcome(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="the extra ray is not installed: nothing is known of clusters here")
    folder = tmp_path / "trace"
    folder.mkdir()
    for name, value in PATIENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")]))
    with monkeypatch.context() as traced:
        traced.setenv(FOLDER, str(folder))
        with two_nodes() as (made, doomed):
            show = Killer(made, doomed, folder)
            todo = run_on_ray(six(), tmp_path / "store", show=show)
    begun = traces(folder)
    dead = {seed: steps for (place, seed), steps in begun.items() if place == "doomed"}
    (lost,) = (seed for seed, steps in dead.items() if LAST not in steps)
    address = {one.seed: one.cell.address for one in ALONE}
    assert len(dead) == 2 and {place for place, _ in begun} == {"stays", "doomed"}, f"cells begun: {begun}"
    assert show.before is not None and len(show.before) < 6 and address[lost] not in show.before
    times = {seed: sum(steps.count(0) for (_, one), steps in begun.items() if one == seed) for seed in range(6)}
    assert times == {seed: 2 if seed == lost else 1 for seed in range(6)}, "only the lost cell begins again"
    store = Store(tmp_path / "store")
    assert sorted(show.ended) == sorted(address.values()) == sorted(one.cell.address for one in todo.cells)
    alone = {one.cell.address: run_cell(one.cell, tmp_path / str(one.seed))[0]["outcome_sha256"] for one in ALONE}
    rows = store.query()
    assert len(rows) == 6 and {row["address"]: row["outcome_sha256"] for row in rows} == alone
    until = time.monotonic() + LIMIT
    while (left := {process for *_, process in lines(folder) if alive(process)}) and time.monotonic() < until:
        time.sleep(0.1)
    assert not left, "processes of the cluster are still there"


# --- without a cluster: what its answers lead to ---------------------------------------------------------------------


class Lost(Exception):
    """As ray.exceptions.RayError: a cell raised something, or its node died too often."""


class Ray:
    """Stands for the module ray, with two processors; a cell is run when its result is asked for."""

    exceptions = SimpleNamespace(RayError=Lost)

    def __init__(self, run=cluster.run_remote, start=lambda: None):
        self.run, self.start, self.given, self.cancelled, self.down = run, start, {}, [], False

    def is_initialized(self):
        return False

    def init(self, **arguments):
        self.start()

    def shutdown(self):
        self.down = True

    def cluster_resources(self):
        return {"CPU": 2.0}

    def remote(self, **arguments):
        return lambda function: SimpleNamespace(remote=self.hand_out)

    def hand_out(self, *given):
        self.given[len(self.given)] = given
        return len(self.given) - 1

    def wait(self, references, timeout):
        return references[:1], references[1:]

    def get(self, reference):
        return self.run(*self.given[reference])

    def cancel(self, reference, force):
        self.cancelled.append(reference)


def raises(error):
    def run(*arguments):
        raise error

    return run


def far(monkeypatch, ray, folder):
    monkeypatch.setitem(sys.modules, "ray", ray)
    return run_on_ray(six(), folder, show=Quiet())


def test_a_cell_that_fails_stops_the_sweep_and_lets_the_others_go(tmp_path, monkeypatch):
    ray = Ray(raises(Lost("no such token")))
    with pytest.raises(SweepStopped, match=r"\(arm 'base', seed 0\) failed: no such token"):
        far(monkeypatch, ray, tmp_path / "store")
    assert sorted(ray.cancelled) == [1, 2, 3] and ray.down, "two for each processor were handed out"
    for one in ALONE:
        with Store(tmp_path / "store").claim(one.cell.address) as free:
            assert free


def test_a_full_disk_stops_the_sweep_and_what_was_kept_stays(tmp_path, monkeypatch):
    add, ray = Store.add, Ray()

    def full(store, record, weights=None):
        if store.finished():
            raise OSError(28, "No space left on device")
        add(store, record, weights)

    monkeypatch.setattr(Store, "add", full)
    with pytest.raises(OSError, match="the sweep stops, its store is complete: No space left"):
        far(monkeypatch, ray, tmp_path / "store")
    assert len(Store(tmp_path / "store").query()) == 1 and ray.down
    monkeypatch.undo()
    far(monkeypatch, Ray(), tmp_path / "store")  # there is room again: the same call goes on
    assert len(Store(tmp_path / "store").query()) == 6


def test_a_node_with_another_version_refuses_the_cell(monkeypatch):
    cell = replace(ALONE[0].cell)
    address = cell.address
    monkeypatch.setattr(cells, "CODE", 99)
    with pytest.raises(ValueError, match=f"must have the zamba_lab of the machine that keeps the store: cell {address} is"):
        cluster.run_remote(cell, address)


KILLED = """
import os, signal, sys, tempfile
from zamba_lab.ablate import cluster

tempfile.tempdir = sys.argv[1]
with cluster.work_folder() as folder:
    (folder / "checkpoint").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a process by a signal")
def test_a_folder_that_a_killed_process_has_left_is_removed_by_the_next_and_that_of_a_living_one_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster.tempfile, "tempdir", str(tmp_path))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("x")
    (tmp_path / f"{cluster.WORK}planted").symlink_to(elsewhere)
    (tmp_path / f"{cluster.WORK}planted.lock").write_text("")
    for _ in range(2):
        assert python("-c", KILLED, tmp_path).returncode == -9
    left = [file for file in tmp_path.iterdir() if file.is_dir() and (file / "checkpoint").exists()]
    assert len(left) == 1, "the second has removed what the first had left"
    with cluster.work_folder() as folder:
        (folder / "checkpoint").write_text("x")
        with cluster.work_folder() as other:
            assert (folder / "checkpoint").exists() and other != folder
        assert not other.exists() and not left[0].exists() and (folder / "checkpoint").exists()
    assert (elsewhere / "precious").exists() and not list(tmp_path.glob(f"{cluster.WORK}*.lock"))


def test_a_cell_that_another_runner_has_finished_is_shown_as_what_it_is(tmp_path, monkeypatch):
    class Noting(Quiet):
        ended = []

        def done(self, planned, status):
            self.ended.append(status)

    store, first, show = Store(tmp_path / "store"), ALONE[0].cell, Noting()
    record, _ = run_cell(first, tmp_path / "cell")
    store.add(record | {"status": "solved"})
    cluster.sweep(Ray(), SimpleNamespace(remote=None), store, [ALONE[0]], show)
    assert show.ended == ["solved"]


def test_where_there_is_no_cluster_or_no_ray_it_is_said_what_to_do(tmp_path, monkeypatch):
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "ray", None)
        with pytest.raises(ModuleNotFoundError, match="pip install 'zamba-lab.ray.'"):
            run_on_ray(study(), tmp_path / "store", show=Quiet())
    late = Ray(start=raises(Exception("The current node timed out during startup")))
    with pytest.raises(ConnectionError, match="no Ray cluster on this machine.*timed out.*ray start --head"):
        far(monkeypatch, late, tmp_path / "store")
