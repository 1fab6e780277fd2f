"""Opening a checkpoint at full size, against transformers' from_pretrained on the same files: time, and peak memory.

Random bfloat16 checkpoints of the published shapes are made for this, in a temporary folder. Contenders take turns,
each run in a fresh process that has imported everything, with the files in the system's cache. "and every weight read"
goes on until each parameter has been used once: a model that is mapped into memory is not there before that. `load`
looks at every weight, for NaN, unless `check=False`; transformers does not. Memory is the growth of the peak resident
size, mapped pages included, as a part of the files' bytes.
"""

import json
import shutil
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from harness import fresh, interleaved, megabytes, peak_resident, ratio_row, repeats
from pairs import TINY, make, quiet

import zamba_lab as zl

FULL = {name: zl.ZambaConfig.preset(name) for name in ("zamba2-1.2b", "zamba2-2.7b")}
QUICK = {"a tiny one": TINY}


def load_ours(folder: str, **options):
    return zl.load(folder, **options)


def load_transformers(folder: str, dtype="auto"):
    from transformers import Zamba2ForCausalLM

    return Zamba2ForCausalLM.from_pretrained(folder, dtype=dtype)


LOADERS = {
    "ours": load_ours,
    "ours, check=False": lambda folder: load_ours(folder, check=False),
    "transformers": load_transformers,
    "ours, float32": lambda folder: load_ours(folder, dtype=torch.float32),
    "transformers, float32": lambda folder: load_transformers(folder, dtype=torch.float32),
    "ours, meta": lambda folder: load_ours(folder, device="meta"),
}
RIVALS = {"transformers": ("ours", "ours, check=False"), "transformers, float32": ("ours, float32",)}


def once(contender: str, folder: str) -> dict[str, float]:
    """What the fresh process does: load, then read every weight; seconds and bytes after each, and what was read."""
    _ = zl.load  # importing is not loading
    if contender.startswith("transformers"):
        from transformers import Zamba2ForCausalLM  # noqa: F401

        quiet()
    before, start = peak_resident(), time.perf_counter()
    model = LOADERS[contender](folder)
    found = {"load": time.perf_counter() - start, "load peak": peak_resident() - before}
    if not contender.endswith("meta"):
        found["sum"] = sum(float(p.detach().amin()) for p in model.parameters())
        found |= {"read": time.perf_counter() - start, "read peak": peak_resident() - before}
    return found


def here(*arguments: str) -> dict | None:
    does = {"--make": lambda name, folder: make((FULL | QUICK)[name], folder), "--load": once}
    return does[arguments[0]](*arguments[1:])


def measure(name: str, count: int, quick: bool = False) -> list[dict[str, str]]:
    """The rows of one shape. Quick ones are loaded in this process. Raises ValueError if the files find no room."""
    size = 2 * (FULL | QUICK)[name].n_params
    free = shutil.disk_usage(tempfile.gettempdir()).free
    if free < 1.2 * size:
        raise ValueError(
            f"the checkpoint of {name} needs {1.2 * size / 1e9:.1f} GB of room: {tempfile.gettempdir()} has {free / 1e9:.1f} GB"
        )
    load = partial(here if quick else partial(fresh, __file__), "--load")
    with tempfile.TemporaryDirectory() as folder:
        (here if quick else partial(fresh, __file__))("--make", name, folder)
        size = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
        label, rows = f"{name}, {size / 1e9:.2f} GB", []
        for peer, several in RIVALS.items() if not quick else list(RIVALS.items())[:1]:
            found = {contender: [] for contender in (*several, peer)}
            interleaved(
                {contender: lambda contender=contender: found[contender].append(load(contender, folder)) for contender in found}, count
            )
            for ours in several:
                two = {"ours": found[ours], "transformers": found[peer]}
                rows += compare(label + ours.removeprefix("ours"), two, size)
        meta = [load("ours, meta", folder) for _ in range(count)]
        rows.append(
            {
                "work": f'{label}, device="meta"',
                "ours": "ours",
                "ours took": f"{1e3 * median(meta, 'load'):.0f} ms, {megabytes(max(m['load peak'] for m in meta))}",
            }
        )
    return rows


def compare(label: str, found: dict[str, list[dict]], size: int) -> list[dict[str, str]]:
    """Rows of time and memory. The first run of each was the warm-up."""
    runs = {contender: several[1:] for contender, several in found.items()}
    sums = [run["sum"] for several in runs.values() for run in several]
    if max(sums) - min(sums) > 1e-6 * abs(sums[0]):  # the same weights, or no comparison
        raise RuntimeError(f"the contenders read different weights: {sums}")
    rows = []
    for what, words in (("load", ""), ("read", ", and every weight read")):
        times = {contender: [run[what] for run in several] for contender, several in runs.items()}
        rows.append(ratio_row(label + words, times, "ours", "transformers"))
        peaks = {contender: max(run[f"{what} peak"] for run in several) for contender, several in runs.items()}
        words_of = {one: f"{megabytes(value)}, {value / size:.2f} of the files" for one, value in peaks.items()}
        rows.append(
            {
                "work": f"{label}{words}: peak memory",
                "ours": "ours",
                "ours took": words_of["ours"],
                "peer": "transformers",
                "peer took": words_of["transformers"],
            }
        )
    return rows


def median(runs: list[dict], what: str) -> float:
    return statistics.median(run[what] for run in runs)


def run(quick: bool = False) -> list[dict[str, str]]:
    return [row for name in (QUICK if quick else FULL) for row in measure(name, repeats(5, quick), quick)]


if __name__ == "__main__":
    print(json.dumps(here(*sys.argv[1:])))
