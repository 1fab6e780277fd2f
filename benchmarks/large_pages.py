"""Reading weights from large pages of memory (`native.memory.empty`) and from pages of the usual size, an ordinary tensor.

A token's matrix-vector products at the shapes of a mixer's two projections, one after the other over 1 GiB of weights, so that
none comes from a cache. Large pages are asked for with madvise; how much of the buffer the system gave them is told
("in large pages"), and without any the two sides are the same.
"""

import re
from functools import partial
from pathlib import Path

import torch
from harness import interleaved, median, percent, ratio_row, repeats

from zamba_lab.native import available, gemv, memory

SHAPES = {
    "zamba2-2.7b, in": (10448, 2560),
    "zamba2-2.7b, out": (2560, 5120),
    "zamba2-1.2b, in": (8512, 2048),
    "zamba2-1.2b, out": (2048, 4096),
}
LARGE, USUAL = "large pages", "usual pages"
SIZE = 1 << 30


def run(quick: bool = False) -> list[dict]:
    if not available():
        return []
    size = 1 << 22 if quick else SIZE
    usual = torch.ones(size // 2, dtype=torch.bfloat16)
    before = _in_large_pages()
    buffers = {LARGE: memory.empty(usual, *usual.shape).copy_(usual), USUAL: usual}
    share = (_in_large_pages() - before) / size
    rows = []
    for name, shape in ({"tiny": (130, 100)} if quick else SHAPES).items():
        times = interleaved({one: partial(products, buffer, *shape) for one, buffer in buffers.items()}, repeats(9, quick))
        read = len(matrices(usual, *shape)) * shape[0] * shape[1] * usual.element_size()
        rows.append(
            ratio_row(f"matrix-vector products, {name} {shape[1]} -> {shape[0]}, bfloat16", times, LARGE, USUAL)
            | {"GB/s": ", ".join(f"{read / median(times[one]) / 1e9:.1f}" for one in buffers), "in large pages": percent(share)}
        )
    return rows


def matrices(buffer: torch.Tensor, out: int, width: int) -> torch.Tensor:
    """As many (out, width) as the buffer holds."""
    count = len(buffer) // (out * width)
    return buffer[: count * out * width].view(count, out, width)


@torch.inference_mode()
def products(buffer: torch.Tensor, out: int, width: int) -> None:
    x = buffer.new_ones(1, width)
    for weight in matrices(buffer, out, width):
        gemv.gemv(x, weight)


def _in_large_pages() -> int:
    """Bytes of this process that lie in large pages; 0 where the system does not say."""
    told = Path("/proc/self/smaps_rollup")
    found = re.search(r"AnonHugePages:\s+(\d+) kB", told.read_text()) if told.exists() else None
    return 1024 * int(found[1]) if found else 0
