"""Studies killed at random moments: `python tests/long/kill_study.py [TRIALS]`; CI runs one trial (ablate/test_kill.py).

Each trial runs a study with two workers in a process group of its own, kills all of it after a random time, and starts it again, until
one ends by itself; some starts kill the runner alone. Then each cell is there once, with the outcome of a study that was never killed,
and nothing else lies in the store. Status 1 if any trial differs.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent)]

from ablate.tiny import study  # noqa: E402 - found on the path just set

from zamba_lab.ablate import Quiet, Store, run  # noqa: E402

RUN = """
import sys
from ablate.tiny import study
from zamba_lab.ablate import Quiet, run

if __name__ == "__main__":
    run(study(seeds=range(int(sys.argv[2]))), sys.argv[1], workers=2, show=Quiet())
"""
TOLERANCE = 1e-6  # of losses; cells run on one thread, so that they differ by rounding at most
MOST = 60  # starts of a trial


def outcomes(store: Store) -> dict[str, tuple]:
    rows = store.query("select address, status, steps, accuracy, held_out_loss from cells")
    return {row["address"]: (row["status"], row["steps"], row["accuracy"], row["held_out_loss"]) for row in rows}


def trouble(store: Store, expected: dict[str, tuple]) -> str:
    """What is wrong with a store after a trial; "" if nothing is."""
    rows, found = store.query("select address from cells"), outcomes(store)
    if len(rows) != len(expected) or found.keys() != expected.keys():
        return f"{len(rows)} rows of {len(found)} cells, expected {len(expected)}"
    for address, (status, steps, *values) in expected.items():
        apart = max(abs(a - b) for a, b in zip(values, found[address][2:]))
        if (status, steps) != found[address][:2] or not apart <= TOLERANCE:
            return f"cell {address} is {found[address]}, expected {expected[address]}"
    left = [file for name in ("work", "claims") for file in (store.folder / name).glob("*")]
    return f"left behind: {left}" if left else ""


def starting(environment: dict[str, str]) -> float:
    """Seconds that a runner and then its workers need to start, about, on this machine as busy as it is now."""
    begin = time.monotonic()
    subprocess.run([sys.executable, "-W", "ignore", "-c", "import ablate.tiny, zamba_lab.ablate.runner"], env=environment, check=True)
    return 2 * (time.monotonic() - begin)


def trial(folder: Path, seeds: int, random_: random.Random, most: int = MOST) -> tuple[int, str]:
    """Kills, and what is wrong after them."""
    run(study(seeds=range(seeds)), folder / "undisturbed", workers=1, show=Quiet())
    expected, store = outcomes(Store(folder / "undisturbed")), folder / "store"
    (folder / "run.py").write_text(RUN)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (TESTS.parent, TESTS))), "OMP_NUM_THREADS": "1"}
    start = starting(environment)
    for kills in range(most):
        command = [sys.executable, "-W", "ignore", str(folder / "run.py"), str(store), str(seeds)]
        runner = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.PIPE)
        try:
            # the last start is left alone
            runner.wait(None if kills == most - 1 else start * (random_.random() ** 0.5 + 0.4 * random_.random()))
        except subprocess.TimeoutExpired:
            runner.kill() if random_.random() < 0.5 else os.killpg(runner.pid, signal.SIGKILL)
            runner.communicate()
            continue
        _, said = runner.communicate()
        return kills, said.decode()[-2000:] if runner.returncode else trouble(Store(store), expected)
    return most, "it did not end"


def main(trials: int) -> int:
    bad = 0
    for number in range(trials):
        with tempfile.TemporaryDirectory() as folder:
            kills, said = trial(Path(folder), 6, random.Random(number))
        bad += bool(said)
        print(f"trial {number}: {kills} kills, {said or 'each cell once, with its outcome'}", flush=True)
    return int(bad > 0)


if __name__ == "__main__":
    raise SystemExit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
