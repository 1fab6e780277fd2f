"""On two Ray nodes of one processor each, one of which dies: every cell once, with the outcome of a local run."""
import os

import pytest
from ablate.tiny import study

from zamba_lab.ablate import Quiet, Store, plan, run_on_ray
from zamba_lab.ablate.pool import outcome

os.environ.setdefault("RAY_raylet_start_wait_time_s", "120")       # read when ray is imported; a busy machine takes its time
ray = pytest.importorskip("ray", reason="the extra ray is not installed: nothing is known of clusters here")


class Nobody:
    def send(self, word):
        """A worker speaks to nobody."""


class Killer(Quiet):
    """Takes one node away once the first cell is done."""

    def __init__(self, cluster, node):
        self.cluster, self.node, self.ended = cluster, node, []

    def done(self, planned, status):
        if not self.ended:
            self.cluster.remove_node(self.node, allow_graceful=False)
        self.ended.append(planned.cell.address)


@pytest.mark.filterwarnings("default")
def test_a_node_that_dies_loses_no_cell_and_changes_no_outcome(tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    tests = os.path.dirname(os.path.dirname(__file__))      # where the nodes find the task
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([os.environ.get("PYTHONPATH", ""), tests]))
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        node = cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        assert len({one["NodeID"] for one in ray.nodes() if one["Alive"]}) == 2
        tiny, show = study(seeds=(0, 1, 2)), Killer(cluster, node)
        todo = run_on_ray(tiny, tmp_path / "far", show=show)
    finally:
        ray.shutdown()
        cluster.shutdown()
    far, near = Store(tmp_path / "far"), Store(tmp_path / "near")
    assert sorted(show.ended) == sorted({one.cell.address for one in todo.cells}) and len(far.query()) == 6
    for one in plan(tiny).cells[:2]:
        assert outcome(one.cell, near, Nobody())[0] == "done"
    here, there = ({address: row["outcome_sha256"] for address, row in store.records(near.finished()).items()}
                   for store in (near, far))
    assert here == there and len(here) == 2
