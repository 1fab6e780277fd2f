"""How a claim of speed or memory is measured: contenders take turns in one process, ratios come first.

Times are interleaved (A B A B ...), so that a busy moment of the machine falls on both; a row gives the median of the
paired ratios, its spread, and each contender's median with its least and greatest. Memory is measured one contender per
fresh process, as the growth of the peak resident size while it runs. What the machine can do at most is in `floors`,
the models that hold the same weights are in `pairs`. Nothing here is a test: tests never time anything.

The variable ZAMBA_BENCH_REPEATS bounds the repeats of every benchmark from above: for a first look on a slow machine.
"""

from __future__ import annotations

import ast
import ctypes
import gc
import importlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from zamba_lab import native

HERE = Path(__file__).resolve().parent
OURS, NATIVE, PURE = "ours", "native", "pure torch"


# --- time ---------------------------------------------------------------------------------------------------------


def repeats(full: int, quick: bool = False) -> int:
    """How often to measure: once if quick, else `full` times, or fewer if ZAMBA_BENCH_REPEATS says so."""
    return 1 if quick else max(1, min(full, int(os.environ.get("ZAMBA_BENCH_REPEATS", full))))


def interleaved(contenders: dict[str, Callable[[], object]], repeats: int, warm: bool = True) -> dict[str, list[float]]:
    """Seconds of each contender's runs, taken in turns, after one warm-up each unless they are warm already."""
    if warm:
        for run in contenders.values():
            run()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return times


def ratio_row(work: str, times: dict[str, list[float]], ours: str, peer: str, target: str = "") -> dict:
    """How many times faster ours is than the peer: median of the paired ratios, with the spread of the pairs.

    target: what the project set itself, as words; it is printed beside the ratio and used for nothing.
    """
    ratios = sorted(slow / fast for fast, slow in zip(times[ours], times[peer]))
    return {
        "work": work,
        "ratio": factor(statistics.median(ratios)),
        "target": target,
        "spread": f"{factor(ratios[0])} .. {factor(ratios[-1])} (n={len(ratios)})",
        "ours": ours,
        "ours took": milliseconds(times[ours]),
        "peer": peer,
        "peer took": milliseconds(times[peer]),
        "seconds": {ours: times[ours], peer: times[peer]},
    }


def time_row(work: str, name: str, times: list[float], **more: str) -> dict:
    """A row without a peer."""
    return {"work": work, "ours": name, "ours took": milliseconds(times), **more, "seconds": {name: times}}


def milliseconds(times: list[float]) -> str:
    """The median, and the least and greatest."""
    spread = f" ({_ms(min(times))} .. {_ms(max(times))})" if len(times) > 1 else ""
    return f"{_ms(median(times))} ms{spread}"


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.0f}" if seconds > 0.02 else f"{1e3 * seconds:.2f}"


def median(times: list[float]) -> float:
    return statistics.median(times)


def percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def factor(ratio: float) -> str:
    return f"{ratio:.2f}x" if ratio < 3 else f"{ratio:.1f}x"


# --- native kernels, and without ----------------------------------------------------------------------------------


@cache
def native_works() -> bool:
    """Whether the native kernels work here; a line says so if not."""
    if not native.available():
        print(f"rows of the native ops are left out: {native.why_not()}", file=sys.stderr)
    return native.available()


def variants(run: Callable[[], object]) -> dict[str, Callable[[], object]]:
    """`run` with the native kernels and without; only the latter where there are none."""

    def pure():
        with native.off():
            return run()

    return {NATIVE: run, PURE: pure} if native_works() else {PURE: pure}


# --- memory, and fresh processes ----------------------------------------------------------------------------------


def fresh(file: str, *arguments: str):
    """What `file` prints as JSON on its last line when run in a process of its own, with the same package."""
    done = subprocess.run([sys.executable, file, *arguments], capture_output=True, text=True, env=package_path())
    if done.returncode:
        raise RuntimeError(f"benchmarks/{Path(file).name} {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def package_path() -> dict[str, str]:
    """The environment in which a process imports the package that lies beside the benchmarks."""
    paths = [str(HERE.parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def peak_resident() -> int:
    """The largest resident size of this process so far, or since `forget_peak`, in bytes.

    On Linux not from getrusage: a process starts there with the peak of the one that started it.
    """
    if (size := _status("VmHWM")) is not None:
        return size
    return (1 if sys.platform == "darwin" else 1024) * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def forget_peak() -> None:
    """On Linux: hand freed memory back and let the peak start again from what is resident now."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (AttributeError, OSError):
        pass


def peak_growth(run: Callable[[], object], warm: Callable[[], object]) -> int:
    """Bytes by which the peak resident size grows while `run` runs once, in this process, after `warm`.

    The warm-up is the same work at a tiny size: what is read, compiled or mapped once is there before.
    """
    warm()
    forget_peak()
    before = _status("VmRSS") or peak_resident()
    kept = run()  # noqa: F841 alive until the peak is read
    return peak_resident() - before


def _status(field: str) -> int | None:
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    return 1024 * next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(field))


def memory_row(work: str, peaks: dict[str, int], ours: str, peer: str, target: str = "") -> dict:
    return {
        "work": f"{work}: peak memory",
        "ratio": f"{peaks[ours] / peaks[peer]:.2f} of the peer's",
        "target": target,
        "ours": ours,
        "ours took": megabytes(peaks[ours]),
        "peer": peer,
        "peer took": megabytes(peaks[peer]),
    }


def megabytes(size: float) -> str:
    return f"{size / 1e6:.0f} MB"


# --- the report ---------------------------------------------------------------------------------------------------


def machine(quick: bool = False) -> dict[str, str]:
    """What a figure depends on besides the code: of tiny sizes it says so."""
    info, memory = Path("/proc/cpuinfo"), Path("/proc/meminfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    total = f"{1024 * int(memory.read_text().split()[1]) / 2**30:.0f} GiB" if memory.exists() else ""
    return {
        "processor": model,
        "instructions": instructions(),
        "memory": total,
        "threads": str(torch.get_num_threads()),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: installed(name) for name in ("transformers", "mambapy")},
        "allocator": allocator(),
        **({"sizes": "tiny"} if quick else {}),
    }


def instructions() -> str:
    """The widest vectors that torch uses here, and the matrix units: with or without one, bfloat16 is another machine."""
    has = getattr(torch.cpu, "get_capabilities", dict)()
    return " ".join([torch.backends.cpu.get_cpu_capability(), *(["AMX"] if has.get("amx_bf16") else [])])


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def allocator() -> str:
    """The allocator that is in this process, by what is mapped into it; the C library's if nothing else is."""
    maps = Path("/proc/self/maps")
    text = maps.read_text() if maps.exists() else os.environ.get("LD_PRELOAD", "")
    other = next((name for name in ("jemalloc", "tcmalloc", "mimalloc") if name in text), None)
    return other or " ".join(filter(None, platform.libc_ver())) + " malloc"


def markdown(rows: list[dict]) -> str:
    """A table; its columns are the keys of all rows that hold words, in order of first appearance."""
    columns = list(dict.fromkeys(key for row in rows for key, value in row.items() if value and isinstance(value, str)))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(row.get(key, "") for key in columns) + " |" for row in rows)])


def report(results: dict[str, list[dict]], quick: bool = False) -> str:
    """All tables, each under its benchmark's docstring. results: "machine", "floors" and benchmarks to their rows."""
    parts = ["TINY SIZES: whether all runs and computes the same. The times say nothing."] * quick
    parts += [
        markdown(results["machine"]),
        "What the machine could do just before each benchmark, all threads:",
        markdown(results["floors"]),
    ]
    for name in sorted(set(results) - {"machine", "floors"}):
        about = ast.get_docstring(ast.parse((HERE / f"{name}.py").read_text(encoding="utf-8")))
        parts.append(f"## {name}\n\n{about}\n\n{markdown(results[name])}")
    return "\n\n".join(parts) + "\n"


def check_report(file: Path, quick: bool) -> None:
    """Raise ValueError, before anything is measured, if the report could not be written or would push out a better one."""
    if file.suffix != ".md" or not file.parent.is_dir():
        raise ValueError(f"the report is a .md file in a folder that is there, its data beside it as .json: got {file}")
    data = file.with_suffix(".json")
    if quick and data.exists() and "sizes" not in json.loads(data.read_text(encoding="utf-8"))["machine"][0]:
        raise ValueError(f"{data} holds what was measured at full sizes, which tiny ones do not replace: name another file")


def joined(results: dict[str, list[dict]], file: Path) -> dict[str, list[dict]]:
    """`results` and what `file` (JSON) holds of other benchmarks, if that was measured on the same machine, at full sizes or
    at tiny ones as these."""
    old = json.loads(file.read_text(encoding="utf-8")) if file.exists() else results
    if old["machine"] != results["machine"]:
        print(f"{file.name} is of another machine, other versions or tiny sizes: it is replaced", file=sys.stderr)
        return results
    floors = [row for row in old["floors"] if row["before"] not in results and (HERE / f"{row['before']}.py").exists()]
    both = {name: rows for name, rows in old.items() if (HERE / f"{name}.py").exists()} | results
    return both | {"floors": sorted([*floors, *results["floors"]], key=lambda row: row["before"])}


def main(names: list[str], quick: bool, as_json: bool, report_file: Path | None) -> int:
    """Run the named benchmarks of this folder, all if none is named, and print their tables. Raises ValueError on an unknown name.

    report_file: an .md file to write the tables to, with the data beside it as .json; what other benchmarks left there stays.
    """
    import floors

    known = sorted(file.stem for file in Path(__file__).parent.glob("*.py") if "\ndef run(" in file.read_text(encoding="utf-8"))
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(f"benchmarks are files of benchmarks/: there is no {', '.join(unknown)}; there are {', '.join(known)}")
    if report_file:
        check_report(report_file, quick)
    results = {"machine": [machine(quick)], "floors": []}
    for name in names or known:
        print(f"{name} ...", file=sys.stderr, flush=True)
        results["floors"].append({"before": name, **floors.measured(quick)})
        results[name] = importlib.import_module(name).run(quick)
        if report_file:  # after each one: a run that is broken off has lost little
            data = report_file.with_suffix(".json")
            all_results = joined(results, data)
            report_file.write_text("# Measured\n\n" + report(all_results, quick), encoding="utf-8")
            data.write_text(json.dumps(all_results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1) if as_json else report(results, quick))
    return 0
