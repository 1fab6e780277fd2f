"""What tracing costs when it is off: the calls on OFF that a pass makes, against the pass, and when it is on.

A trace that keeps and edits nothing is to cost what none does: passes with and without take turns.
"""

import time
from contextlib import nullcontext

import torch
from harness import interleaved, milliseconds, ratio_row, repeats

import zamba_lab as zl


class Counting:
    """Stands in for OFF and counts what a pass asks of it."""

    def __init__(self):
        self.calls = 0

    def at(self, path, alias=None):
        self.calls += 1
        return self

    def wants(self, name):
        self.calls += 1
        return False

    def editor(self, name):
        return None

    def one_pass(self):
        return nullcontext()

    def record(self, name, value):
        self.calls += 1
        return value

    def __call__(self, name, value):
        self.calls += 1
        return value


@torch.no_grad()
def run(quick: bool = False) -> list[dict]:
    torch.manual_seed(0)
    model = zl.Zamba(zl.ZambaConfig.preset("zamba2-nano"))
    rows = []
    for l in (1, 64) if quick else (1, 64, 512):
        ids = torch.randint(2048, (1, l))
        counting = Counting()
        model(ids, trace=counting)
        start = time.perf_counter()
        for _ in range(100_000):
            zl.OFF("z", ids)
        call = (time.perf_counter() - start) / 100_000
        keep = ["*.resid_out"]
        two = {"off": lambda: model(ids), "keep resid_out": lambda: model(ids, trace=zl.Trace(keep=keep))}
        times = interleaved(two, repeats(21, quick))
        off = sorted(times["off"])[len(times["off"]) // 2]
        rows.append(
            {
                "work": f"nano, one pass of {l} tokens",
                "off": milliseconds(times["off"]),
                "calls on OFF": str(counting.calls),
                "their share of the pass": f"{counting.calls * call / off:.2%}",
                "keep resid_out": milliseconds(times["keep resid_out"]),
            }
        )
    both = {"Trace() that keeps nothing": lambda: model(ids, trace=zl.Trace()), "no trace": lambda: model(ids)}
    rows.append(ratio_row(f"nano, one pass of {l} tokens", interleaved(both, repeats(101, quick)), *both, target="within 1 %"))
    return rows
