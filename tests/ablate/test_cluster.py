"""A sweep on Ray: two nodes of one processor each, one of which is killed while it is in the middle of a cell.

Shown with real nodes: both end cells; the cell that the dead node was at, and no other, is begun again; every cell is kept
once, by the process that holds the store; and all outcomes are those of a run without Ray, bit by bit.
"""
import os
import socket
import time
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ablate.far import FOLDER, LAST, LIMIT, Traced, lines, traces
from ablate.tiny import TRAIN, study

from zamba_lab.ablate import Quiet, Store, SweepStopped, cell as cells, cluster, plan, run_cell, run_on_ray

TESTS = Path(__file__).resolve().parents[1]
PORTS = ("metrics_agent_port", "dashboard_agent_listen_port", "runtime_env_agent_port", "metrics_export_port")
# A node's helpers may take a minute to start on a busy machine; these are read by the processes of each node.
PATIENT = {"RAY_agent_register_timeout_ms": "300000", "RAY_worker_register_timeout_seconds": "300", "RAY_USAGE_STATS_ENABLED": "0"}
ALONE = plan(study(task=Traced(), seeds=range(6), axes={})).cells


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

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False,
                                                         "include_log_monitor": False, **free_ports()})
    try:
        doomed = made.add_node(num_cpus=1, **free_ports())
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
        if self.before is None and (self.folder / "held").exists():
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


def outcomes_alone(folder) -> dict[str, str]:
    """address -> hash of the outcome, without Ray and without a store."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {one.cell.address: run_cell(one.cell, folder / str(one.seed))[0]["outcome_sha256"] for one in ALONE}
    finally:
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
            (folder / "doomed").write_text(doomed.node_id)
            show = Killer(made, doomed, folder)
            todo = run_on_ray(study(task=Traced(), seeds=range(6), axes={}), tmp_path / "store", show=show)
    begun = traces(folder)
    dead = {seed: steps for (node, seed), steps in begun.items() if node == doomed.node_id}
    (lost,) = (seed for seed, steps in dead.items() if LAST not in steps)
    address = {one.seed: one.cell.address for one in ALONE}
    assert len(dead) == 2 and len({node for node, _ in begun}) == 2, f"cells begun: {begun}"
    assert show.before is not None and len(show.before) < 6 and address[lost] not in show.before
    times = {seed: sum(steps.count(0) for (_, one), steps in begun.items() if one == seed) for seed in range(6)}
    assert times == {seed: 2 if seed == lost else 1 for seed in range(6)}, "only the lost cell begins again"
    store = Store(tmp_path / "store")
    assert sorted(show.ended) == sorted(address.values()) == sorted(one.cell.address for one in todo.cells)
    kept = {row["address"]: row["outcome_sha256"] for row in store.query()}
    assert len(store.query()) == 6 and kept == outcomes_alone(tmp_path / "alone")
    until = time.monotonic() + LIMIT
    while (left := {process for *_, process in lines(folder) if alive(process)}) and time.monotonic() < until:
        time.sleep(0.1)
    assert not left, "processes of the cluster are still there"
