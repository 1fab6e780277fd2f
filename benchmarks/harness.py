"""How a claim of speed or memory is measured: contenders take turns in one process, ratios come first.

Times are interleaved (A B A B ...), so that a busy moment of the machine falls on both; a row gives the median of the
paired ratios, its spread, and the medians themselves. Memory is measured one contender per fresh process, as the
growth of the peak resident size while it runs. Nothing here is a test: tests never time anything.
"""

from __future__ import annotations

import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch


def interleaved(contenders: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each contender's runs, taken in turns after one warm-up each."""
    for run in contenders.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return times


def ratio_row(work: str, times: dict[str, list[float]], ours: str, peer: str) -> dict[str, str]:
    """How many times faster ours is than the peer: median of the paired ratios, with the spread of the pairs."""
    ratios = sorted(slow / fast for fast, slow in zip(times[ours], times[peer]))
    return {"work": work, "ratio": f"{statistics.median(ratios):.1f}x",
            "spread": f"{ratios[0]:.1f} .. {ratios[-1]:.1f} (n={len(ratios)})",
            ours: milliseconds(times[ours]), peer: milliseconds(times[peer])}


def milliseconds(times: list[float]) -> str:
    return f"{1e3 * statistics.median(times):.0f} ms"


def peak_resident() -> int:
    """The largest resident size of this process so far, in bytes.

    On Linux not from getrusage: a process starts there with the peak of the one that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def peak_growth(file: str, name: str) -> int:
    """Bytes by which the peak resident size grew while `file` ran its contender `name` once, in a fresh process."""
    command = [sys.executable, file, "--peak-of", name]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(output.splitlines()[-1])


def peak_main(contenders: Callable[[], dict[str, Callable[[], object]]]) -> None:
    """What the fresh process of `peak_growth` does: build all, run one, print the growth of the peak in bytes."""
    if "--peak-of" not in sys.argv:
        return
    run = contenders()[sys.argv[sys.argv.index("--peak-of") + 1]]
    before = peak_resident()
    run()
    print(peak_resident() - before)
    sys.exit(0)


def machine() -> dict[str, str]:
    """What a figure depends on besides the code."""
    size, repeats = 2048, 5
    a, b = torch.randn(size, size), torch.randn(size, size)
    times = interleaved({"gemm": lambda: a @ b}, repeats)["gemm"]
    model = next((line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
                  if line.startswith("model name")), platform.processor()) if Path("/proc/cpuinfo").exists() else ""
    return {"processor": model, "threads": str(torch.get_num_threads()), "python": platform.python_version(),
            "torch": torch.__version__, "allocator": "the C library's", "float32 matrix product":
            f"{2 * size ** 3 / statistics.median(times) / 1e9:.0f} GFLOP/s"}


def markdown(rows: list[dict[str, str]]) -> str:
    """A table; its columns are the keys of all rows, in order of first appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(row.get(key, "") for key in columns) + " |" for row in rows)])

