"""The product for many rows of bfloat16 on a matrix unit, against torch's, at the shapes of a prompt.

Weights and results are not in a cache: five matrices and three results take turns, as layer follows layer. "+ adapter" adds
(x down^T) up^T of rank 128 in the same call; torch multiplies three times and adds. "off" is the root mean square of the difference
from float64, in units of the result. Where there is no matrix unit nothing is measured but a tiny shape.
"""

from collections import deque
from itertools import cycle

import torch
from harness import interleaved, ratio_row, repeats
from pairs import must_agree
from torch import Tensor

from zamba_lab.native import gemm, memory, unit

NATIVE, TORCH = "native", "torch"
TINY = [("tiny", 40, 70, 90, 3)]
# name, rows, in, out, rank
SHAPES = [
    ("2.7B in_proj", 512, 2560, 10448, 0),
    ("2.7B out_proj", 512, 5120, 2560, 0),
    ("2.7B q", 512, 5120, 5120, 0),
    ("2.7B gate_up + adapter", 512, 2560, 20480, 128),
    ("2.7B down", 512, 10240, 2560, 0),
    ("1.2B in_proj", 512, 2048, 8512, 0),
    ("1.2B out_proj", 512, 4096, 2048, 0),
    ("1.2B q + adapter", 512, 4096, 4096, 128),
    ("2.7B adapter's first", 512, 2560, 128, 0),
    ("narrow", 512, 2560, 512, 0),
    *(("2.7B in_proj", rows, 2560, 10448, 0) for rows in (256, 128, 64, 32)),
]


def one(name: str, rows: int, width: int, out: int, rank: int, n: int) -> dict:
    torch.manual_seed(0)
    like = torch.empty(0, dtype=torch.bfloat16)
    x = memory.empty(like, rows, width).normal_()
    weights = [memory.empty(like, out, width).normal_() for _ in range(5)]
    down, up = ((torch.randn(rank, width) / width**0.5).to(like), torch.randn(out, rank).to(like)) if rank else (None, None)
    kept, places = deque(maxlen=2), cycle([memory.empty(like, rows, out) for _ in range(3)])

    def native(weight: Tensor) -> Tensor:
        kept.append(gemm.gemm(x, weight, None, down, up))  # two are held, so each result has another place
        return kept[-1]

    def plain(weight: Tensor) -> Tensor:
        y = torch.mm(x, weight.T, out=next(places))
        return y if down is None else y.add_((x @ down.T) @ up.T)

    exact = x.double() @ weights[0].double().T + (0 if down is None else (x.double() @ down.double().T) @ up.double().T)
    results, turns = (native(weights[0]), plain(weights[0])), {NATIVE: cycle(weights), TORCH: cycle(weights)}
    todo = {NATIVE: lambda: native(next(turns[NATIVE])), TORCH: lambda: plain(next(turns[TORCH]))}
    must_agree(name, *results, 0.02)
    off = [((y.double() - exact).square().mean().sqrt() / exact.square().mean().sqrt()).item() for y in results]
    row = ratio_row(f"{name}: {rows} x {width} x {out}", interleaved(todo, n), NATIVE, TORCH)
    rate = 2 * rows * (width * (out + rank) + rank * out) / sorted(row["seconds"][NATIVE])[n // 2] / 1e9
    return row | {"rate": f"{rate:.0f} GFLOP/s", "off": f"native {off[0]:.4f}, torch {off[1]:.4f}"}


def run(quick: bool = False) -> list[dict]:
    quick = quick or unit.matrix_unit() != 1
    return [one(*shape, repeats(41, quick)) for shape in (TINY if quick else SHAPES)]
