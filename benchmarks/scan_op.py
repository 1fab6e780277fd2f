"""The selective scan of Mamba-1 alone, against mamba.py's parallel scan and transformers' loop.

B=1 T=512 D=512 N=16 in float32, forward and backward, and forward alone. "pure torch" is the same op without the native
kernels. mamba.py's contender is `MambaBlock.selective_scan` of mambapy, which discretises, runs its pscan and reads the
states; transformers' is `mamba_selective_scan` of its Zamba1, the torch path. None has a gate or a D skip here.
"""

import sys
from functools import partial

import torch
from harness import NATIVE, PURE, installed, interleaved, ratio_row, repeats, variants
from pairs import PEER, must_agree

from zamba_lab.ops.scan import selective_scan

SHAPE, QUICK = dict(b=1, l=512, d=512, n=16), dict(b=2, l=37, d=16, n=4)
PSCAN = "mamba.py's pscan"
TARGETS = {("forward+backward", PSCAN): ">= 5x"}


def contenders(both_ways: bool, b: int, l: int, d: int, n: int) -> dict:
    """Each returns y, or the gradients of x, dt, A, B and C, in the same layout."""
    torch.manual_seed(0)
    inputs = [torch.randn(b, l, d), torch.rand(b, l, d) / 10, -torch.rand(d, n) * 16, torch.randn(b, l, n), torch.randn(b, l, n)]
    gradient = torch.randn(b, l, d)
    if both_ways:
        for tensor in inputs:
            tensor.requires_grad_()

    def whole(op):
        with torch.set_grad_enabled(both_ways):
            return torch.autograd.grad(op(*inputs), inputs, gradient) if both_ways else (op(*inputs),)

    peers = {PEER: partial(whole, _transformers)}
    if installed("mambapy") == "not installed":
        print(f"mambapy is not installed (pip install zamba-lab[bench]): {PSCAN} is left out", file=sys.stderr)
    else:
        peers = {PSCAN: partial(whole, _mambapy), **peers}
    return {**variants(partial(whole, _ours)), **peers}


def _ours(x, dt, A, B, C):
    return selective_scan(x[:, :, None], dt[:, :, None], A[None], B[:, :, None], C[:, :, None])[0][:, :, 0]


def _mambapy(x, dt, A, B, C):
    from mambapy.mamba import MambaBlock

    return MambaBlock.selective_scan(None, x, dt, A, B, C, torch.zeros(x.shape[-1]))


def _transformers(x, dt, A, B, C):
    from transformers.models.zamba.modeling_zamba import mamba_selective_scan

    return mamba_selective_scan(x.mT, dt.mT, A, B.mT, C.mT).mT


def run(quick: bool = False) -> list[dict]:
    shape, rows = QUICK if quick else SHAPE, []
    for work in ("forward+backward", "forward"):
        todo = contenders(work == "forward+backward", **shape)
        ours = [name for name in todo if name in (NATIVE, PURE)]
        expected = todo[PEER]()
        for name in todo:  # the same function, or no comparison
            for one, other in zip(todo[name](), expected, strict=True):
                must_agree(f"selective scan {work}, {name}", one, other, 1e-4)
        times = interleaved(todo, repeats(9, quick))
        label = f"selective scan {work} " + " ".join(f"{key.upper()}={value}" for key, value in shape.items())
        rows += [ratio_row(label, times, one, peer, TARGETS.get((work, peer), "")) for one in ours for peer in todo if peer not in ours]
    return rows
