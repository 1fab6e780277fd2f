"""What the kernels are written in: the SSD scan in C, in Numba, and as torch.compile makes it of the eager form.

The shape of a Zamba2-2.7B layer, B=1 T=2048 H=80 P=64 N=64, float32, forward. The Numba version is the recurrence with its
state in a small array, a head and 16 channels a task, as fast as some tries made it. "first use" is what a user waits for
once in a process: for C with an empty cache (compiled, then loaded) and with a full one, for Numba the same.
"""

import importlib.util
import os
import subprocess
import sys
import tempfile
import time

import torch
from harness import interleaved, ratio_row, repeats

from zamba_lab import native
from zamba_lab.ops.ssd import ssd, ssd_chunked

LANES = 16


def inputs(b: int, l: int, h: int, p: int, n: int) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    return (torch.randn(b, l, h, p), torch.rand(b, l, h) * 0.1, -torch.rand(h) * 16, torch.randn(b, l, 1, n), torch.randn(b, l, 1, n))


def numba_scan():
    """The scan as a Numba function of arrays, y (b, l, h, p) its last argument; None where Numba is not installed."""
    if importlib.util.find_spec("numba") is None:
        return None
    import numba
    import numpy as np

    @numba.njit(parallel=True, fastmath=True, cache=True)
    def scan(x, dt, A, B, C, y):
        b, l, h, p = x.shape
        n, blocks = B.shape[3], p // LANES
        for task in numba.prange(b * h * blocks):
            i, head, lane = task // (h * blocks), task // blocks % h, task % blocks * LANES
            state = np.zeros((n, LANES), np.float32)
            for t in range(l):
                decay = np.exp(dt[i, t, head] * A[head])
                u = np.empty(LANES, np.float32)
                out = np.zeros(LANES, np.float32)
                for c in range(LANES):
                    u[c] = dt[i, t, head] * x[i, t, head, lane + c]
                for j in range(n):
                    for c in range(LANES):
                        state[j, c] = decay * state[j, c] + B[i, t, 0, j] * u[c]
                        out[c] += C[i, t, 0, j] * state[j, c]
                for c in range(LANES):
                    y[i, t, head, lane + c] = out[c]

    return scan


def contenders(sizes: tuple[int, ...], backend: str) -> tuple[dict, dict]:
    """What is timed, and the seconds each took the first time in this process."""
    given = inputs(*sizes)
    compiled = torch.compile(lambda *a: ssd_chunked(*a)[0], dynamic=False, backend=backend)
    todo = {"C": lambda: ssd(*given)[0], "eager": lambda: ssd_chunked(*given)[0], "torch.compile": lambda: compiled(*given)}
    scan = numba_scan()
    if scan is not None:
        arrays, y = [t.numpy() for t in given], torch.empty_like(given[0])
        todo["Numba"] = lambda: (scan(*arrays, y.numpy()), y)[1]
    first, expected = {}, ssd_chunked(*given)[0]
    for name, run in todo.items():
        start = time.perf_counter()
        got = run()
        first[name] = time.perf_counter() - start
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)
    return todo, first


def build_seconds() -> list[float]:
    """Seconds until the kernels can be used in a fresh process that has imported them: compiled, then from the cache."""
    code = (
        "import time; from zamba_lab import native; start = time.perf_counter(); assert native.available(); "
        "print(time.perf_counter() - start)"
    )
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "ZAMBA_LAB_CACHE": folder}
        return [
            float(subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout)
            for _ in range(2)
        ]


def run(quick: bool = False) -> list[dict[str, str]]:
    if not native.available():
        return [{"work": f"no native kernels here: {native.why_not()}"}]
    b, l, h, p, n = sizes = (1, 32, 2, 16, 8) if quick else (1, 2048, 80, 64, 64)
    todo, first = contenders(sizes, "eager" if quick else "inductor")
    times = interleaved(todo, repeats(9, quick))
    rows = [ratio_row(f"SSD forward B={b} L={l} H={h} P={p} N={n}", times, "C", name) for name in todo if name != "C"]
    if quick:
        return rows
    cold, warm = build_seconds()
    rows.append(
        {
            "work": "first use",
            "C": f"{cold:.1f} s, all kernels; then {1e3 * warm:.0f} ms",
            **{name: f"{first[name]:.1f} s, this one" for name in ("torch.compile", "Numba") if name in first},
        }
    )
    return rows
