"""Two processes of which one fails: `python failing.py FOLDER`. test_failing.py reads what is left.

In each case process 1 alone sees the trouble, in step 4 of 6; afterwards two processes go on with what is there. For each process
and case FOLDER/<kind>, <case>, <first or again>-<rank>.txt says how it ended; a killed one says nothing.
"""

import os
import signal
import sys
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from train.ranks import CONFIG, DATA, model_of

from zamba_lab.train import train
from zamba_lab.train.distributed import PARALLEL

CASES = {
    "no number": lambda logits: logits * float("nan"),
    "stopped": lambda logits: os.kill(os.getpid(), signal.SIGINT),
    "killed": lambda logits: os.kill(os.getpid(), signal.SIGKILL),
}


def in_step_4(trouble, calls: list, module, arguments, logits):
    """A forward hook: trouble in the fourth call."""
    calls.append(1)
    return trouble(logits) if len(calls) == 4 else None


def run(folder: Path, kind: str, case: str | None, rank: int) -> None:
    model = model_of("two blocks")
    if case and rank == 1:
        model.register_forward_hook(partial(in_step_4, CASES[case], []))
    train(model, DATA, CONFIG, folder, processes=PARALLEL[kind]())


def child(folder: Path, kind: str, case: str | None, when: str, rank: int) -> None:
    """Train, and write down how it ended. when: "first", where the trouble is, or "again", where there is none."""
    torch.set_num_threads(1)
    said = folder / f"{kind}, {case}, {when}-{rank}.txt"
    try:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet-{kind}-{case}-{when}", rank=rank, world_size=2)
        run(folder / f"{kind}, {case}", kind, case if when == "first" else None, rank)
        said.write_text("done")
    except BaseException as error:
        said.write_text(f"{type(error).__name__}: {error}")


def two(work) -> None:
    """Both processes to their ends, whatever these are."""
    children = []
    for rank in range(2):
        if not (number := os.fork()):
            try:
                work(rank)
            finally:
                os._exit(0)  # no goodbye between processes of which one may be gone
        children.append(number)
    for number in children:
        os.waitpid(number, 0)


if __name__ == "__main__":
    where = Path(sys.argv[1])
    for name in PARALLEL:
        for one in (None, *CASES):
            for time in ("first", "again") if one else ("first",):
                two(partial(child, where, name, one, time))
