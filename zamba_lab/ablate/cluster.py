"""The same cells on a Ray cluster: where one machine is too small. Needs the extra `ray`.

The store stays with the process that calls this, and nobody else writes to it. It claims a cell, hands it to whichever node is
free, and keeps the record that comes back; nodes need this version of zamba_lab and no common disk. A cell whose node or
process dies begins again elsewhere and ends with the same outcome.
"""

import contextlib
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from zamba_lab.ablate.cell import Cell, run_cell
from zamba_lab.ablate.live import Live, Quiet
from zamba_lab.ablate.planning import Plan, Planned, plan
from zamba_lab.ablate.registry import check
from zamba_lab.ablate.runner import PATIENCE, largest_first, stopped
from zamba_lab.ablate.store import Store
from zamba_lab.ablate.study import Study
from zamba_lab.lazy import needed
from zamba_lab.writing import locked

AHEAD = 2  # cells handed out for each processor: one that runs, and the next
RETRIES = 10  # how often a cell begins again because its node or process died
WORK = "zamba-lab-cell-"  # a node's folders of cells, and their locks, in the folder for temporary files


def run_on_ray(study: Study, folder: str | Path, address: str | None = None, show: Live | Quiet | None = None) -> Plan:
    """Run all cells of a study that are not finished, on a cluster.

    Args:
        folder: the store, on this machine.
        address: of the cluster, as ray.init takes it; None: the one this process is connected to, or a local one.

    Returns: the plan, whose cells are all in the store. Raises ModuleNotFoundError without Ray, ConnectionError if there is no
    cluster, and as `runner.run`.
    """
    ray = needed("ray", "running on a cluster", "ray")
    store, show = Store(folder), Live() if show is None else show
    check(study, store)
    with _connected(ray, address):
        # Ray gives a task of one processor one thread (OMP_NUM_THREADS). What Python raises is not tried again.
        remote = ray.remote(num_cpus=1, max_retries=RETRIES)(run_remote)
        while left := (todo := plan(study, store)).left(store):
            show.begin(todo, store.statuses(), _processors(ray))
            try:
                sweep(ray, remote, store, left, show)
            finally:
                show.end()
    return todo


def run_remote(cell: Cell, address: str) -> tuple[dict[str, Any], dict[str, Any]]:
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
    with work_folder() as folder:
        record, weights = run_cell(cell, folder)
    return record, weights if cell.weights else {}


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    """A folder for one cell, removed afterwards. A process that is killed cannot do so: the next one on that machine does."""
    temporary = Path(tempfile.gettempdir())
    lock = temporary / f"{WORK}{uuid.uuid4().hex}.lock"
    with locked(lock, PATIENCE):
        owner = lock.stat().st_uid
        for other in temporary.glob(f"{WORK}*.lock"):
            with contextlib.suppress(OSError):  # locked by a living process, or removed meanwhile
                if other != lock and other.lstat().st_uid == owner:
                    with locked(other):
                        _remove(other)
        folder = lock.with_suffix("")
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            _remove(lock)


def _remove(lock: Path) -> None:
    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
    lock.unlink(missing_ok=True)


def sweep(ray, remote, store: Store, cells: list[Planned], show: Live | Quiet) -> None:
    """Hand out these cells and keep what comes back."""
    waiting = largest_first(cells)
    out: dict[Any, tuple[Planned, contextlib.ExitStack]] = {}  # what is being run, and its claim
    try:
        while waiting or out:
            for _ in range(min(AHEAD * _processors(ray) - len(out), len(waiting))):
                planned, claim = waiting.popleft(), contextlib.ExitStack()
                if claim.enter_context(store.claim(planned.cell.address)):
                    out[remote.remote(planned.cell, planned.cell.address)] = planned, claim
                    continue
                claim.close()
                if store.has(planned.cell.address):  # another runner has finished it
                    show.done(planned, store.records([planned.cell.address])[planned.cell.address]["status"])
                else:
                    waiting.append(planned)
            if not out:
                time.sleep(PATIENCE)
            done, _ = ray.wait(list(out), timeout=1.0) if out else ([], None)
            for reference in done:
                planned, claim = out.pop(reference)
                with claim:
                    show.done(planned, _keep(ray, reference, planned, store))
            show.draw()
    finally:
        for reference, (_, claim) in out.items():
            ray.cancel(reference, force=True)
            claim.close()


def _keep(ray, reference, planned: Planned, store: Store) -> str:
    """Put what came back into the store; its status."""
    try:
        record, weights = ray.get(reference)
    except ray.exceptions.RayError as error:
        raise stopped(planned, "failed", error) from error
    try:
        store.add(record, weights or None)
    except OSError as error:
        raise stopped(planned, "full", error.strerror) from error
    return record["status"]


@contextlib.contextmanager
def _connected(ray, address: str | None):
    """While this process is connected to a cluster; one that it was connected to before stays."""
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(address=address, include_dashboard=False, log_to_driver=False)
    except Exception as error:
        where = f"at {address!r}" if address else "on this machine"
        raise ConnectionError(
            f"there is no Ray cluster {where}: {error}. Where a node needs long to start, start it with ports "
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
