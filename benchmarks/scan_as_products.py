"""The SSD scan of a layer over 512 tokens in bfloat16: the native kernel on a matrix unit, on vectors, and torch's products.

Forward, bfloat16 in and out, at the shapes of Zamba2-2.7B and -1.2B. "native" is what a prompt goes through: on a matrix unit where
there is one, in halves that keep 16 bits of each number, else on vectors in float32. "products" is the chunked form of `ops.ssd` with
all chunks at once, every product in bfloat16 by torch and decays in float32: it rounds decayed scores and states to 8 bits before they
are multiplied, as the published CUDA kernels do. "off" is the root mean square of a result's difference from the same scan in float64,
in units of the result.
"""

import sys
from collections.abc import Callable
from functools import partial
from unittest import mock

import torch
from harness import NATIVE, interleaved, native, ratio_row, repeats
from kernel_choice import inputs
from pairs import must_agree
from torch import Tensor

from zamba_lab.ops.ssd import ssd, ssd_chunked

SIZES, QUICK = ((1, 512, 80, 64, 64), (1, 512, 64, 64, 128)), ((1, 128, 2, 32, 32),)
VECTORS, PRODUCTS, TOLERANCE = "native, on vectors", "products", 0.05


def products(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk: int) -> Tensor:
    """y of `ops.ssd` from a state of zeros, for one group and a length that chunks divide."""
    b, l, h, p = x.shape
    c, n, low = l // chunk, B.shape[-1], x.dtype
    B, C = (part.view(b, c, chunk, n) for part in (B, C))
    decay = (dt * A).view(b, c, chunk, h).cumsum(2).permute(0, 1, 3, 2)  # (b, c, h, t): log decay since the start
    u = (dt[..., None] * x).view(b, c, chunk, h, p).permute(0, 1, 3, 2, 4)  # (b, c, h, s, p)
    upper = torch.ones(chunk, chunk, dtype=torch.bool).triu(1)
    L = (decay[..., :, None] - decay[..., None, :]).masked_fill_(upper, -torch.inf).exp_()
    inside = L.mul_((C @ B.mT).float()[:, :, None]).to(low) @ u.to(low)  # (b, c, h, t, p)
    left = u * (decay[..., -1:] - decay).exp()[..., None]
    wrote = (left.to(low).mT.reshape(b, c, h * p, chunk) @ B).float().view(b, c, h, p, n)
    state, before = torch.zeros(b, h, p, n), []
    for i in range(c):
        before.append(state)
        state = decay[:, i, :, -1, None, None].exp() * state + wrote[:, i]
    states = torch.stack(before, 1).to(low).view(b, c, h * p, n)
    across = (C @ states.mT).view(b, c, chunk, h, p).permute(0, 1, 3, 2, 4) * decay.exp()[..., None]
    return (inside + across).permute(0, 1, 3, 2, 4).reshape(b, l, h, p).to(low)


def on_vectors(op: Callable[[], Tensor]) -> Tensor:
    """The native kernel as it is without a matrix unit."""
    with mock.patch.object(sys.modules["zamba_lab.native.ssd"], "matrix_unit", lambda: 0):
        return op()


def rows_of(sizes: tuple[int, ...], quick: bool) -> list[dict]:
    x, dt, A, B, C = inputs(*sizes)
    given = (x.bfloat16(), dt, A, B.bfloat16(), C.bfloat16())
    exact = ssd_chunked(*(t.double() for t in given))[0]
    label = "SSD forward, bfloat16, " + " ".join(f"{name}={size}" for name, size in zip("BTHPN", sizes))
    with torch.inference_mode():
        todo = {
            NATIVE: lambda: ssd(*given)[0],
            VECTORS: lambda: on_vectors(lambda: ssd(*given)[0]),
            **{f"{PRODUCTS}, chunks of {chunk}": partial(products, *given, chunk) for chunk in (32, 64, 128)},
        }
        far = {name: must_agree(label, op(), exact, TOLERANCE) for name, op in todo.items()}
        times = interleaved(todo, repeats(41, quick))
    return [
        ratio_row(label, times, NATIVE, other) | {"off": f"{NATIVE} {far[NATIVE]:.4f}, {other} {far[other]:.4f}"}
        for other in todo
        if other != NATIVE
    ]


def run(quick: bool = False) -> list[dict]:
    if not native():
        return [{"work": "no native kernels here"}]
    return [row for sizes in (QUICK if quick else SIZES) for row in rows_of(sizes, quick)]
