"""The long run of mutated checkpoints and of processes in one folder: `make test-long`. Prints what became of how many.

Inputs are guided by coverage: one that takes a step between two lines of zamba_lab's reading code which none took before
is kept, and further ones are made from it. An escape is anything but a CheckpointError or a whole model: another
exception, or no end. Escapes are kept as folders to look at, and are exit status 1. The same seed gives the same inputs.

Then savers and readers run beside one another, and savers are killed, in folders in which links are planted: every load
must be one model whole or an error, and nothing outside the folder may change.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "checkpoints")]
import fuzzing  # noqa: E402
import test_folder as folders  # noqa: E402
import torch  # noqa: E402
from variants import BASE, make_model  # noqa: E402

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
        files = fuzzing.mutate(random.choice(random.choice([sound, found, found[-50:]])), random)
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


def run_processes(rounds: int, seed: int, folder: Path) -> Counter:
    """Rounds of two savers, one of them killed, and a reader in one folder; every second one with a link planted in it."""
    random, counts = Random(seed), Counter()
    victim = folders.save(make_model(BASE, 9), folder / "victim")
    before = folders.tree(victim)
    for n in range(rounds):
        path, children = folder / f"round {n}", []
        folders.save(make_model(BASE, 0), path)
        try:
            children = [folders.start(folders.saver, path, seeds) for seeds in ([0, 1], [2])]
            children.append(folders.start(folders.reader, path, [0, 1, 2], 1.0))
            counts["errors"] += [folders.answer(pipe) for _, pipe in children[:2]] != ["ready", "ready"]
            time.sleep(random.uniform(0, 0.5))
            if n % 2:
                link = path / random.choice([".saved", ".moving", ".saving-x"])
                if not os.path.lexists(link):
                    link.symlink_to(victim)
            children[0][0].kill()
            result = folders.answer(children[2][1])
            counts.update(result if isinstance(result, dict) else ["hung"])
        finally:
            for child in children:
                folders.stop(*child)
        for name in (".saved", ".moving", ".saving-x"):
            if (path / name).is_symlink():
                (path / name).unlink()
        folders.save(make_model(BASE, 0), path)
        counts["left over"] += sorted(os.listdir(path)) != ["config.json", "model.safetensors"]
        counts["mixed"] += not folders.same(folders.load(path), make_model(BASE, 0))
    counts["victim changed"] = folders.tree(victim) != before
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=40, help="of processes in one folder")
    given = parser.parse_args()
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _hang)
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        counts, escapes, steps = run(given.inputs, given.seed, Path(folder))
        processes = run_processes(given.rounds, given.seed, Path(folder))
    print(
        f"{given.inputs} mutated checkpoints of seed {given.seed}, guided by coverage ({steps} steps between lines), "
        f"in {time.monotonic() - begin:.0f} s: {counts['refused']} refused, {counts['opened']} opened whole, "
        f"{counts['escaped']} escaped in {len(escapes)} ways"
    )
    print(f"{given.rounds} rounds of savers, kills and readers in one folder: {dict(processes)}")
    bad = [processes[what] for what in ("mixed", "hung", "left over", "victim changed", "errors")]
    return 1 if escapes or any(bad) else 0


if __name__ == "__main__":
    sys.exit(main())
