"""The SSD scan of a Zamba2-2.7B layer over 512 tokens as matrix products in bfloat16, against the native kernel.

B=1 T=512 H=80 P=64 N=64, one group, bfloat16 in and out, forward. What a processor with a matrix unit might gain: "products" is the
chunked form of `ops.ssd` with all chunks at once, every product in bfloat16 by torch and decays in float32. It rounds decayed scores
and states to bfloat16 before they are multiplied, as the published CUDA kernels do and the kernels here do not; "off" is the root mean
square of its difference from the same scan in float64, in units of the result, beside the native kernel's.
"""

import torch
from harness import NATIVE, interleaved, native, ratio_row, repeats
from kernel_choice import inputs
from pairs import must_agree
from torch import Tensor

from zamba_lab.ops.ssd import ssd, ssd_chunked

SIZES, QUICK = (1, 512, 80, 64, 64), (1, 128, 2, 16, 8)
PRODUCTS, TOLERANCE = "products", 0.05


def products(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, chunk: int) -> Tensor:
    """y of `ops.ssd` from a state of zeros, for one group and a length that chunks divide."""
    b, l, h, p = x.shape
    c, n, low = l // chunk, B.shape[-1], x.dtype
    B, C = (part.view(b, c, chunk, n) for part in (B, C))
    decay = (dt * A).view(b, c, chunk, h).cumsum(2).permute(0, 1, 3, 2)                  # (b, c, h, t): log decay since the start
    u = (dt[..., None] * x).view(b, c, chunk, h, p).permute(0, 1, 3, 2, 4)               # (b, c, h, s, p)
    upper = torch.ones(chunk, chunk, dtype=torch.bool).triu(1)
    L = (decay[..., :, None] - decay[..., None, :]).masked_fill_(upper, -torch.inf).exp_()
    inside = L.mul_((C @ B.mT).float()[:, :, None]).to(low) @ u.to(low)                  # (b, c, h, t, p)
    left = u * (decay[..., -1:] - decay).exp()[..., None]
    wrote = (left.to(low).mT.reshape(b, c, h * p, chunk) @ B).float().view(b, c, h, p, n)
    state, before = torch.zeros(b, h, p, n), []
    for i in range(c):
        before.append(state)
        state = decay[:, i, :, -1, None, None].exp() * state + wrote[:, i]
    states = torch.stack(before, 1).to(low).view(b, c, h * p, n)
    across = (C @ states.mT).view(b, c, chunk, h, p).permute(0, 1, 3, 2, 4) * decay.exp()[..., None]
    return (inside + across).permute(0, 1, 3, 2, 4).reshape(b, l, h, p).to(low)


def run(quick: bool = False) -> list[dict]:
    if not native():
        return [{"work": "no native kernels here"}]
    x, dt, A, B, C = inputs(*(QUICK if quick else SIZES))
    given = (x.bfloat16(), dt, A, B.bfloat16(), C.bfloat16())
    exact, rows = ssd_chunked(*(t.double() for t in given))[0], []
    label = "SSD forward, bfloat16, " + " ".join(f"{name}={size}" for name, size in zip("BTHPN", QUICK if quick else SIZES))
    with torch.inference_mode():
        for chunk in (32, 64, 128):
            todo = {NATIVE: lambda: ssd(*given)[0], PRODUCTS: lambda: products(*given, chunk)}
            far = [f"{name} {must_agree(label, todo[name](), exact, TOLERANCE):.4f}" for name in todo]
            row = ratio_row(f"{label}, chunks of {chunk}", interleaved(todo, repeats(41, quick)), NATIVE, PRODUCTS)
            rows.append(row | {"off": ", ".join(far)})
    return rows
