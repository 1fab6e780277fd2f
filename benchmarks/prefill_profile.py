"""Where the time of reading a prompt of 512 tokens goes, at the published shapes in bfloat16: torch's profiler, kind by kind.

A share is an operator's own time over all of them, so the kinds are the whole. The matrix products stand against
themselves, by the same kernels, back to back (`prefill`): what is above it, they lose to operands that are not in a
cache. The profiler itself costs some of the time that it divides.
"""

import time
from collections import Counter

import torch
from floors import products_alone
from harness import OURS, factor, median, percent, repeats, time_row
from prefill import LENGTH, OWN_FLOOR, WARM, at_published_shapes, readers
from torch.profiler import ProfilerActivity, profile

import zamba_lab as zl

PRODUCTS = "matrix products"
KINDS = {
    PRODUCTS: ("zamba_lab::gemm", "aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "mkldnn::"),
    "Mamba mixers: convolution, scan, gate, norm": ("zamba_lab::mamba",),
    "norms": ("zamba_lab::rms_norm", "aten::rms_norm"),
    "attention's softmax and sums": ("zamba_lab::attend", "aten::_scaled_dot_product", "aten::scaled_dot_product"),
    "sums, activations, products of elements": (
        "zamba_lab::gated",
        "zamba_lab::turn",
        "aten::add",
        "aten::mul",
        "aten::gelu",
        "aten::silu",
        "aten::sub",
        "aten::div",
    ),
    "copies and moves": ("aten::copy_", "aten::cat", "aten::fill_", "aten::zero_", "aten::index", "aten::embedding"),
}
REST = "the rest"


def kind(operator: str) -> str:
    return next((name for name, starts in KINDS.items() if operator.startswith(starts)), REST)


def one_profile(run) -> tuple[float, Counter]:
    """The seconds of a run, and of each kind of operator in it."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        start = time.perf_counter()
        run()
        took = time.perf_counter() - start
    kinds = Counter()
    for event in found.key_averages():
        kinds[kind(event.key)] += event.self_cpu_time_total / 1e6
    return took, kinds


def rows_of(name: str, config: zl.ZambaConfig, folder: str, dtype: torch.dtype, quick: bool) -> list[dict]:
    length = 70 if quick else LENGTH
    read, floor = readers(folder, (OURS,))[OURS], products_alone(config, length, dtype, ours=True)
    read(WARM)
    read(length)
    floor()
    took, kinds, floors = [], Counter(), []
    for _ in range(n := repeats(5, quick)):
        seconds, found = one_profile(lambda: read(length))
        took.append(seconds)
        kinds.update(found)
        start = time.perf_counter()
        floor()
        floors.append(time.perf_counter() - start)
    whole, label = sum(kinds.values()), f"prefill {length} tokens, {name}"
    rows = [time_row(f"{label}: all of it, under the profiler", OURS, took)]
    for one, seconds in kinds.most_common():
        row = {"work": f"{label}: {one}", "ratio": percent(seconds / whole), "ours": OURS, "ours took": f"{1e3 * seconds / n:.0f} ms"}
        if one == PRODUCTS:
            row |= {
                "peer": OWN_FLOOR,
                "peer took": f"{1e3 * median(floors):.0f} ms",
                "against the floor": factor(seconds / n / median(floors)),
            }
        rows.append(row)
    return rows


def run(quick: bool = False) -> list[dict]:
    return at_published_shapes(rows_of, quick)
