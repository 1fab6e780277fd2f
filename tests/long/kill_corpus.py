"""The long run of killed corpus builds: `make test-long`. Killed at random moments and called again, the bytes are the same.

Each trial starts `corpora.build` in a process group of its own, kills all of it with SIGKILL after a random share of the time that an
undisturbed build takes, and starts it again, until one ends by itself. Then every file is compared with the undisturbed build's, and
nothing else may lie in the folder. Full disks are played the same way, by a limit on the size of files.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from corpora_planted import document, vocabulary

BUILD = """
import sys
from zamba_lab import corpora
if __name__ == "__main__":
    corpora.build(corpora.Folder(sys.argv[1]), sys.argv[2], tokenizer=300, shard_size=4000, workers=int(sys.argv[3]))
"""


def make_texts(folder: Path, count: int = 60) -> Path:
    """Files of random words, some of them copies."""
    rng = random.Random(0)
    words = vocabulary(rng, 300)
    texts = [document(rng, words, rng.randint(200, 1500)) for _ in range(count)]
    folder.mkdir()
    for k, text in enumerate([*texts, *texts[: count // 8]]):
        (folder / f"{k:03}.txt").write_text(text, encoding="utf-8", newline="")
    return folder


def start(script: Path, texts: Path, out: Path, workers: int, limit: int | None = None) -> subprocess.Popen:
    """A build in a session of its own. limit: bytes that a file may have, None for no limit."""
    script.write_text(BUILD)

    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [sys.executable, script, texts, out, str(workers)], stderr=subprocess.PIPE, start_new_session=True, preexec_fn=limited
    )


def content(folder: Path) -> dict[str, bytes]:
    """All that lies in a folder but the lock."""
    return {
        str(file.relative_to(folder)): file.read_bytes() if file.is_file() else b"folder"
        for file in sorted(folder.rglob("*"))
        if file.name != ".lock"
    }


def begun(process: subprocess.Popen, out: Path) -> float:
    """When the build began to write; at the latest when it ended."""
    while not out.exists() and process.poll() is None:
        time.sleep(0.002)
    return time.monotonic()


def trial(
    folder: Path, texts: Path, expected: dict[str, bytes], seconds: float, workers: int, rng: random.Random, most: int
) -> tuple[int, str]:
    """The number of kills, at most `most`, until a build ended by itself, and what is wrong with it.

    The first build of a trial is killed early, with room on the disk, so that every trial has a kill however fast the machine is.
    """
    out, kills = folder / f"out{rng.random()}", 0
    while True:
        process = start(folder / "build.py", texts, out, workers, rng.choice([None, None, None, rng.randint(1, 20_000)]) if kills else None)
        begun(process, out)
        try:
            _, errors = process.communicate(timeout=seconds * rng.uniform(0, 0.9 if kills else 0.2) if kills < most else None)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            kills += 1
            continue
        if process.returncode == 0:
            files = content(out)
            wrong = sorted(name for name in expected.keys() | files.keys() if expected.get(name) != files.get(name))
            return kills, f"differs in {wrong}" if wrong else ""
        if b"File too large" not in errors or b"the same call goes on" not in errors:
            return kills, errors.decode()


def run(trials: int, seed: int, folder: Path, workers: int = 1, most: int = 8) -> tuple[int, list[str]]:
    """The number of kills, and what went wrong."""
    rng, texts = random.Random(seed), make_texts(folder / "texts")
    process = start(folder / "build.py", texts, folder / "whole", workers)
    begin = begun(process, folder / "whole")
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    seconds, expected = time.monotonic() - begin, content(folder / "whole")
    results = [trial(folder, texts, expected, seconds, workers, rng, most) for _ in range(trials)]
    return sum(kills for kills, _ in results), [wrong for _, wrong in results if wrong]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    status = 0
    for workers in (1, 2):
        kills, wrong = run(arguments.trials, arguments.seed, Path(tempfile.mkdtemp(prefix="corpora-")), workers)
        print(f"{workers} workers: {arguments.trials} corpora, {kills} kills, {len(wrong)} wrong")
        print("\n".join(wrong))
        status |= bool(wrong)
    return status


if __name__ == "__main__":
    sys.exit(main())
