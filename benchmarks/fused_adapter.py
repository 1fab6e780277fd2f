"""An adapter's first matrix A beside the shared projection W, as the lab has it, or as more rows of W.

y = W x + B (A x). "Beside" is a product of its own, and for many rows of bfloat16 on a matrix unit all three in one call, for which x
is put into tiles once (`gemm.c`). "One product" multiplies by [W; A] and takes the result apart. W is shared and A is each
invocation's, so [W; A] is either kept, a copy of W for each invocation (the column "copies" says how much that is), or made anew for
every product, which is what training would have to do. Decoding is one row, a prompt 512, both in bfloat16 at the published shapes and
in float32 at zamba2-nano's; a training step of this layer alone is at train_step's shape, B=8 T=512, with W and A joined inside it.
"""

from functools import partial

import torch
from harness import interleaved, megabytes, ratio_row, repeats
from pairs import TINY, must_agree
from torch import Tensor, nn
from train_step import ZAMBA2

import zamba_lab as zl
from zamba_lab.blocks.linear import Linear
from zamba_lab.blocks.lora import Lora, adapted
from zamba_lab.ops.linear import linear

TWO, KEPT, ANEW = "A beside W", "one product, [W; A] kept", "one product, [W; A] made anew"
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.02}


def layer(c: zl.ZambaConfig, dtype: torch.dtype) -> tuple[Linear, nn.ModuleDict]:
    torch.manual_seed(0)
    shared = Linear(c.d_model, 2 * c.d_mlp, bias=False, dtype=dtype)
    return shared, nn.ModuleDict({"mlp": Lora(c.d_model, c.lora_rank, 2 * c.d_mlp).to(dtype)})


def both(shared: Linear, adapter: Lora) -> Tensor:
    return torch.cat([shared.weight, adapter.down.weight])


def joined(weight: Tensor, up: Linear, x: Tensor) -> Tensor:
    y = linear(x, weight)
    wide, narrow = y.split([up.out_features, up.in_features], -1)
    return wide + up(narrow)


def inference(name: str, c: zl.ZambaConfig, dtype: torch.dtype, rows: int, n: int) -> dict:
    shared, adapters = layer(c, dtype)
    x, kept = torch.randn(1, rows, c.d_model, dtype=dtype), both(shared, adapters["mlp"]).detach()
    todo = {TWO: partial(adapted, shared, adapters, "mlp", x), KEPT: partial(joined, kept, adapters["mlp"].up, x)}
    with torch.inference_mode():
        must_agree(name, todo[TWO](), todo[KEPT](), TOLERANCE[dtype])
        times = interleaved(todo, n)
    copies = c.n_invocations * kept.nbytes - c.n_shared_blocks * shared.weight.nbytes
    return ratio_row(f"{name}, {rows} rows, {dtype}".replace("torch.", ""), times, TWO, KEPT) | {"copies": megabytes(copies)}


def training(name: str, c: zl.ZambaConfig, rows: int, n: int) -> dict:
    shared, adapters = layer(c, torch.float32)
    adapter, x = adapters["mlp"], torch.randn(rows, c.d_model, requires_grad=True)
    gradient, wanted = torch.randn(rows, 2 * c.d_mlp), [x, *shared.parameters(), *adapters.parameters()]

    def whole(op) -> tuple[Tensor, ...]:
        return torch.autograd.grad(op(), wanted, gradient)

    todo = {
        TWO: partial(whole, lambda: adapted(shared, adapters, "mlp", x)),
        ANEW: partial(whole, lambda: joined(both(shared, adapter), adapter.up, x)),
    }
    for one, other in zip(todo[TWO](), todo[ANEW](), strict=True):
        must_agree(name, one, other, TOLERANCE[torch.float32])
    return ratio_row(f"{name}, {rows} rows, forward+backward, float32", interleaved(todo, n), TWO, ANEW)


def run(quick: bool = False) -> list[dict]:
    if quick:
        return [inference("tiny", TINY, torch.float32, 3, 1), training("tiny", TINY, 6, 1)]
    rows = []
    for name, dtype in (("zamba2-2.7b", torch.bfloat16), ("zamba2-1.2b", torch.bfloat16), ("zamba2-nano", torch.float32)):
        shape = zl.ZambaConfig.preset(name)
        rows += [inference(name, shape, dtype, 512, repeats(21)), inference(name, shape, dtype, 1, repeats(201))]
    return [*rows, training("Zamba2 10 M", ZAMBA2, 8 * 512, repeats(15))]
