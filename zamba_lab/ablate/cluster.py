"""The same cells on a Ray cluster: where one machine is too small. Needs the extra `ray`.

The store stays with the process that calls this, and nobody else writes to it. It claims a cell, hands it to whichever node is
free, and keeps the record that comes back; nodes need this version of zamba_lab and no common disk. A cell whose node or
process dies begins again elsewhere and ends with the same outcome.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any

from zamba_lab.ablate.cell import Cell, run_cell
from zamba_lab.ablate.live import Live, Quiet
from zamba_lab.ablate.planning import Plan, Planned, plan
from zamba_lab.ablate.runner import FULL, PATIENCE, SweepStopped
from zamba_lab.ablate.store import Store
from zamba_lab.ablate.study import Study

AHEAD = 2  # cells handed out for each processor: one that runs, and what it takes next
RETRIES = 10  # how often a cell begins again because its node or process died


def run_on_ray(study: Study, folder: str | Path, address: str | None = None, show: Live | Quiet | None = None) -> Plan:
    """Run all cells of a study that are not finished, on a cluster.

    Args:
        folder: the store, on this machine.
        address: of the cluster, as ray.init takes it; None: the one this process is connected to, or a local one.

    Returns: the plan, whose cells are all in the store. Raises ModuleNotFoundError without Ray, ConnectionError if there is no
    cluster, and as `runner.run`.
    """
    ray = _ray()
    store, show = Store(folder), Live() if show is None else show
    with _connected(ray, address):
        # Ray gives a task of one processor one thread (OMP_NUM_THREADS). What Python raises is not tried again.
        far = ray.remote(num_cpus=1, max_retries=RETRIES)(run_far)
        while left := (todo := plan(study, store)).left(store):
            show.begin(todo, left, _processors(ray))
            try:
                sweep(ray, far, store, left, show)
            finally:
                show.end()
    return todo


def run_far(cell: Cell, address: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """A cell on whatever machine this is: its record and, if they are kept, its weights.

    Raises ValueError if the cell has another address here: the two machines would not run the same thing.
    """
    import torch

    if (here := replace(cell).address) != address:  # worked out anew: what came over the line is the sender's
        raise ValueError(
            f"a node must have the zamba_lab of the machine that keeps the store: cell {address} is {here} on this "
            "node. Install the same version on all nodes"
        )
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="cell-") as folder:
        record, weights = run_cell(cell, Path(folder))
    return record, weights if cell.weights else {}


def sweep(ray, far, store: Store, cells: list[Planned], show: Live | Quiet) -> None:
    """Hand out these cells, the largest first, and keep what comes back."""
    waiting = deque(sorted(cells, key=lambda one: -one.cell.flops))
    out: dict[Any, tuple[Planned, contextlib.ExitStack]] = {}
    try:
        while waiting or out:
            room = AHEAD * _processors(ray) - len(out)
            for _ in range(min(room, len(waiting))):
                one, held = waiting.popleft(), contextlib.ExitStack()
                if held.enter_context(store.claim(one.cell.address)):
                    out[far.remote(one.cell, one.cell.address)] = one, held
                    continue
                held.close()
                if not store.has(one.cell.address):  # another runner is at it
                    waiting.append(one)
            if not out:
                time.sleep(PATIENCE)
            done, _ = ray.wait(list(out), timeout=1.0) if out else ([], None)
            for reference in done:
                _keep(ray, reference, *out.pop(reference), store, show)
            show.draw()
    finally:
        for reference, (_, held) in out.items():
            ray.cancel(reference, force=True)
            held.close()


def _keep(ray, reference, one: Planned, held: contextlib.ExitStack, store: Store, show: Live | Quiet) -> None:
    with held:
        try:
            record, weights = ray.get(reference)
        except ray.exceptions.RayError as error:
            raise SweepStopped(f"cell {one.cell.address} (arm {one.arm!r}, seed {one.seed}) failed: {error}") from error
        try:
            store.add(record, weights or None)
        except OSError as error:
            raise OSError(error.errno, f"{FULL}: {error.strerror}") from error
    show.done(one, record["status"])


@contextlib.contextmanager
def _connected(ray, address: str | None):
    """While this process is connected to a cluster; one that it was connected to before stays."""
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False)
    except Exception as error:  # noqa: BLE001 - Ray raises a bare Exception where a node is late
        where = f"at {address!r}" if address else "on this machine"
        raise ConnectionError(
            f"there is no Ray cluster {where}: {error}. Where a node takes long to start, start it with ports "
            "of your choice, which Ray then does not wait for (ray start --head --dashboard-agent-grpc-port "
            "--dashboard-agent-listen-port --runtime-env-agent-port --metrics-export-port), and give its "
            "address"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _processors(ray) -> int:
    return int(ray.cluster_resources().get("CPU", 1))


def _ray():
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("running on a cluster needs Ray: pip install 'zamba-lab[ray]'") from error
    return ray
