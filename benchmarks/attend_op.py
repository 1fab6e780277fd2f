"""Causal attention of many queries of bfloat16 on a matrix unit, against torch's, at the published shapes.

Queries, keys and values are random and not in a cache: three of each take turns, as invocation follows invocation. They lie as the
projections leave them, so a head's rows are far apart; where there are positions before the queries, keys and values lie as the
cache holds them. "off" is the root mean square of the difference from float64, in units of the result. torch is told "causal" where
all positions are new, and is given a mask where not, as the model would. Where there is no matrix unit only a tiny shape is measured.
"""

from itertools import cycle

import torch
from harness import interleaved, ratio_row, repeats
from pairs import must_agree
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from zamba_lab.ops.attention import visible_keys
from zamba_lab.native import attend, memory, unit

NATIVE, TORCH = "native", "torch"
TINY = [("tiny", 2, 33, 70, 32)]
# name, heads, queries, all positions, width of a head
SHAPES = [
    ("2.7B", 32, 512, 512, 160),
    ("2.7B", 32, 512, 4096, 160),
    ("1.2B", 32, 512, 512, 128),
    ("1.2B", 32, 512, 4096, 128),
    *(("2.7B", 32, l, l, 160) for l in (256, 128, 64, 32)),
    *(("2.7B", 32, l, 4096, 160) for l in (64, 32)),
]


def one(name: str, h: int, l: int, s: int, p: int, n: int) -> dict:
    torch.manual_seed(0)
    scale, visible = p**-0.5, None if l == s else visible_keys(l, s)

    def projected(length: int) -> Tensor:
        return memory.empty(torch.empty(0, dtype=torch.bfloat16), 1, length, h, p).normal_().transpose(1, 2)

    def cached() -> Tensor:
        return projected(s) if l == s else projected(s).contiguous()

    given = [(projected(l), cached(), cached()) for _ in range(3)]

    def native(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend.attend(q, k, v, scale)

    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=visible is None, scale=scale)

    exact = scaled_dot_product_attention(*(t.double() for t in given[0]), attn_mask=visible_keys(l, s), scale=scale)
    results, turns = (native(*given[0]), plain(*given[0])), {NATIVE: cycle(given), TORCH: cycle(given)}
    todo = {NATIVE: lambda: native(*next(turns[NATIVE])), TORCH: lambda: plain(*next(turns[TORCH]))}
    must_agree(name, *results, 0.05)
    off = [((y.double() - exact).square().mean().sqrt() / exact.square().mean().sqrt()).item() for y in results]
    row = ratio_row(f"{name}: {l} queries, {s} positions, {h} heads of {p}", interleaved(todo, n), NATIVE, TORCH)
    return row | {"off": f"native {off[0]:.4f}, torch {off[1]:.4f}"}


def run(quick: bool = False) -> list[dict]:
    quick = quick or unit.matrix_unit() != 1
    return [one(*shape, repeats(41, quick)) for shape in (TINY if quick else SHAPES)]
