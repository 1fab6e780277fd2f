"""Training killed at random moments, many times over: `python tests/long/kill_train.py [ROUNDS]`; CI runs one round (train/test_kill.py).

Each round kills a run of ten steps some 30 times, by another seed, and compares what it ends with to a run that was never
killed: weights and rows of metrics, bit for bit. Status 1 if any round differs.
"""

import sys
import tempfile
from pathlib import Path

import torch

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from processes import python  # noqa: E402 - found on the path just set

from zamba_lab.train import read_metrics  # noqa: E402

KILLS = 24  # at random; seven more at named places


def rows(folder: Path) -> list[dict]:
    return [{name: value for name, value in row.items() if not name.startswith("seconds")} for row in read_metrics(folder)]


def trouble(folder: Path, run: str, seed: int) -> str:
    """What differs after a round of kills; "" if nothing does."""
    done = python(TESTS / "train" / "killed.py", folder, run, KILLS, seed, timeout=1800)
    if done.returncode:
        return done.stderr[-2000:]
    whole, parts = (torch.load(folder / name / "end.pt") for name in ("whole", "parts"))
    differ = [name for name, value in whole.items() if not torch.equal(value, parts[name])]
    if differ or rows(folder / "whole") != rows(folder / "parts"):
        return f"weights that differ: {differ}, rows: {len(rows(folder / 'whole'))} and {len(rows(folder / 'parts'))}"
    return ""


def main(rounds: int) -> int:
    bad = 0
    for seed in range(1, rounds + 1):
        for run in ("plain", "annealing"):
            with tempfile.TemporaryDirectory() as folder:
                said = trouble(Path(folder), run, seed)
            bad += bool(said)
            print(f"seed {seed} {run}: {said or 'the same bits'}", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10))
