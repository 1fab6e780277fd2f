"""The long run of spoiled checkpoints, guided by coverage: `make test-long`. Prints what became of how many.

An input that takes a step between two lines of zamba_lab's reading code which none took before is kept, and further
ones are made from it. An escape is anything but a CheckpointError or a whole model: another exception, or no end.
Escapes are kept as folders to look at, and are exit status 1. The same seed gives the same inputs.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))
import fuzzing  # noqa: E402
import torch  # noqa: E402

import zamba_lab  # noqa: E402

READING = tuple(str(Path(zamba_lab.__file__).parent / part) for part in ("checkpoints", "config"))
SECONDS = 20  # longer is a hang: the sound ones take a few hundredths of a second


class Hang(BaseException):
    """Not an Exception, so that nothing takes it for an error of its own."""


def _hang(*_) -> None:
    raise Hang(f"no end after {SECONDS} s")


class Steps:
    """The steps from line to line of the reading code, while it is entered."""

    def __enter__(self) -> set:
        self.seen, last = set(), {}

        def local(frame, event, argument):
            key = id(frame)
            self.seen.add((frame.f_code, last.get(key), frame.f_lineno, event))
            last[key] = frame.f_lineno
            return local

        def new(frame, event, argument):
            last.pop(id(frame), None)
            return local if frame.f_code.co_filename.startswith(READING) else None

        sys.settrace(new)
        return self.seen

    def __exit__(self, *error) -> None:
        sys.settrace(None)


def run(inputs: int, seed: int, folder: Path) -> tuple[Counter, dict[str, Path], int]:
    """How often each outcome came; the escapes by what they raised and where; the number of steps that were seen."""
    random, seen, counts, escapes = Random(seed), set(), Counter(), {}
    sound = list(fuzzing.sound(folder / "sound").values())
    found = sound[:]
    begin = said = time.monotonic()
    for n in range(inputs):
        files = fuzzing.spoil(random.choice(random.choice([sound, found, found[-50:]])), random)
        signal.alarm(SECONDS)
        with Steps() as steps:
            try:
                result = fuzzing.outcome(files, folder / "input")
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # a panic of the file format's library is no Exception
                result = "escaped"
                keep(error, escapes, folder / "input")
        signal.alarm(0)
        counts[result] += 1
        if not steps <= seen:
            seen |= steps
            found.append(files)
        if time.monotonic() - said > 30:
            said = time.monotonic()
            print(f"  {n + 1} of {inputs}: {dict(counts)}, {len(seen)} steps, {said - begin:.0f} s", flush=True)
    return counts, escapes, len(seen)


def keep(error: BaseException, escapes: dict[str, Path], folder: Path) -> None:
    """Move the input away, unless one with the same end is kept."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    what = f"{type(error).__name__} in {place.name}, {Path(place.filename).name}: {str(error)[:200]}"
    key = f"{type(error).__name__} {place.filename}:{place.lineno}"
    if key not in escapes:
        kept = Path(tempfile.mkdtemp(prefix="escaped-"))
        folder.rename(kept / "checkpoint")
        escapes[key] = kept
        print(f"ESCAPE {what}\n  kept: {kept / 'checkpoint'}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _hang)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        counts, escapes, steps = run(given.inputs, given.seed, Path(folder))
    print(
        f"{given.inputs} spoiled checkpoints of seed {given.seed}, guided by coverage ({steps} steps between lines), "
        f"in {time.monotonic() - begin:.0f} s: {counts['refused']} refused, {counts['opened']} opened whole, "
        f"{counts['escaped']} escaped in {len(escapes)} ways"
    )
    return 1 if escapes else 0


if __name__ == "__main__":
    sys.exit(main())
