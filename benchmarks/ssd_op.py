"""The SSD op alone, against transformers' torch path: forward, forward and backward, and peak memory.

Forward at B=1 T=2048 H=80 P=64 N=64, the shape of a Zamba2-2.7B layer; both directions at B=8 T=512 H=8 P=64 N=64; all
in float32. "pure torch" is the same op without the native kernels. The peer runs at its published chunk size, 256, and
at ours, 64: the second tells how much of the ratio is the chunk size.
"""

import json
import sys
from functools import partial

import torch
from harness import NATIVE, PURE, fresh, interleaved, memory_row, peak_growth, ratio_row, repeats, variants
from pairs import PEER, PEER_64, must_agree

from zamba_lab.ops.ssd import ssd

SHAPES = {"forward": dict(b=1, l=2048, h=80, p=64, n=64), "forward+backward": dict(b=8, l=512, h=8, p=64, n=64)}
QUICK = dict(b=2, l=300, h=4, p=16, n=16)
TARGETS = {
    ("forward", NATIVE): ">= 30x",
    ("forward", PURE): ">= 3.5x",
    ("forward+backward", NATIVE): ">= 12x",
    ("forward+backward", PURE): ">= 3.7x",
}


def contenders(work: str, b: int, l: int, h: int, p: int, n: int) -> dict:
    """Each returns y and the last state, or the gradients of all five inputs."""
    from transformers.models.zamba2.modeling_zamba2 import mamba2_chunk_scan

    torch.manual_seed(0)
    inputs = [torch.randn(b, l, h, p), torch.rand(b, l, h) / 10, -torch.rand(h) * 16, torch.randn(b, l, 1, n), torch.randn(b, l, 1, n)]
    gradient = torch.randn(b, l, h, p)

    def peer(chunk_size):
        return mamba2_chunk_scan(*inputs, chunk_size=chunk_size, return_final_states=True)

    def both_ways(op):
        return torch.autograd.grad(op()[0], inputs, gradient)

    def forward(op):
        with torch.no_grad():
            return op()

    if work == "forward+backward":
        for tensor in inputs:
            tensor.requires_grad_()
    whole = both_ways if work == "forward+backward" else forward
    return {
        **variants(partial(whole, lambda: ssd(*inputs))),
        PEER: partial(whole, partial(peer, 256)),
        PEER_64: partial(whole, partial(peer, 64)),
    }


def run(quick: bool = False) -> list[dict]:
    rows = []
    for work, shape in SHAPES.items():
        shape = QUICK if quick else shape
        todo = contenders(work, **shape)
        ours, peers = [name for name in todo if name in (NATIVE, PURE)], [PEER, PEER_64]
        expected = todo[PEER]()
        for name in (*ours, PEER_64):  # the same function, or no comparison
            for one, other in zip(todo[name](), expected, strict=True):
                must_agree(f"SSD {work}, {name}", one, other, 1e-4)
        times = interleaved(todo, repeats(9, quick))
        label = f"SSD {work} " + " ".join(f"{key.upper()}={value}" for key, value in shape.items())
        rows += [ratio_row(label, times, one, peer, TARGETS[work, one] if peer == PEER else "") for one in ours for peer in peers]
        if not quick:
            peaks = {name: fresh(__file__, work, name) for name in todo}
            rows += [memory_row(label, peaks, one, peer) for one in ours for peer in peers]
    return rows


if __name__ == "__main__":
    work, name = sys.argv[1:]
    print(json.dumps(peak_growth(contenders(work, **SHAPES[work])[name], warm=contenders(work, **QUICK)[name])))
