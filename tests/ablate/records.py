"""Records as a run would leave them, without a run."""

import numpy as np

from zamba_lab.ablate import Cell
from zamba_lab.ablate.cell import record


def made(cell: Cell, accuracy: float, status: str = "unsolved", steps: int = 6) -> dict:
    """The record of a cell that ended with this accuracy. Its slice "late" has half the loss."""
    rows = [
        {
            "step": step,
            "loss": 1 - share * accuracy,
            "accuracy": share * accuracy,
            "held_out_loss": 2 - share * accuracy,
            "loss.late": 1 - share * accuracy / 2,
            "solved": float(status == "solved" and share == 1),
            "seconds": 0.01,
            "seconds_waiting": 0.0,
        }
        for step, share in ((steps // 2, 0.5), (steps, 1.0))
    ]
    return record(cell, rows, "no number" if status == "diverged" else "", {}, {}, [1.0] * cell.config.n_invocations, 0.1)


def drawn(study, accuracies: dict, store) -> None:
    """Fill a store with a finished study: arm -> accuracy of each seed."""
    from zamba_lab.ablate import plan

    for one in plan(study).cells:
        found = np.asarray(accuracies[one.arm])[list(study.seeds).index(one.seed)]
        store.add(made(one.cell, float(found), "solved" if found >= study.solved else "unsolved"))
