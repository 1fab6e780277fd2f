"""What the machine can do at most: matrix products and reading memory, all threads; and what a model asks of both."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from harness import interleaved

from zamba_lab import accounting
from zamba_lab.config import ZambaConfig
from zamba_lab.ops.linear import linear

GEMM = (512, 2560, 10448)  # 512 tokens through the first product of a Zamba2-2.7B mixer


def measured(quick: bool = False) -> dict[str, str]:
    """The floors as a row of a report."""
    rates = {f"{dtype}".removeprefix("torch."): gemm_rate(dtype, quick) for dtype in (torch.float32, torch.bfloat16)}
    speed, way = read_bandwidth(quick)
    shape = "x".join(map(str, GEMM))
    return {
        **{f"{name} product {shape}": f"{rate / 1e9:.0f} GFLOP/s" for name, rate in rates.items()},
        "reading memory": f"{speed / 1e9:.1f} GB/s ({way})",
    }


def gemm_rate(dtype: torch.dtype, quick: bool = False) -> float:
    """FLOPs per second of one large product into a buffer that is there: the best of a few."""
    m, k, n = (64, 64, 64) if quick else GEMM
    x, weight, out = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype), torch.empty(m, n, dtype=dtype)
    times = interleaved({"gemm": lambda: torch.mm(x, weight.t(), out=out)}, 2 if quick else 7)["gemm"]
    return 2 * m * k * n / min(times)


def read_bandwidth(quick: bool = False) -> tuple[float, str]:
    """Bytes per second of the fastest of three plain reads of a buffer far larger than the caches, and which it was.

    A sum, a dot product of the buffer with itself (read once) and a matrix-vector product, all in float32: torch's
    reductions of other types and its bfloat16 matrix-vector product are bound by arithmetic, not by memory.
    """
    buffer = torch.empty(2**20 if quick else 2**28).fill_(1)  # 1 GiB
    matrix, vector = buffer.view(-1, 4096), torch.ones(4096)
    reads = {"sum": buffer.sum, "dot": lambda: torch.dot(buffer, buffer), "matrix-vector": lambda: torch.mv(matrix, vector)}
    times = interleaved(reads, 2 if quick else 7)
    way = min(times, key=lambda name: statistics.median(times[name]))
    return buffer.nbytes / statistics.median(times[way]), way


def products(c: ZambaConfig) -> list[tuple[int, int]]:
    """The (in, out) of every weight matrix that one token passes, shared ones at every use; without the head."""
    d, width, shared = c.d_model, c.attn_heads * c.head_dim, c.kv_heads * c.head_dim
    if c.mixer == "mamba2":
        mixer = [(d, c.d_inner + c.conv_dim + c.ssm_heads), (c.d_inner, d)]
    else:
        head = [(c.headdim, c.dt_width + 2 * c.d_state), (c.dt_width, c.headdim)] * c.ssm_heads
        mixer = [(d, 2 * c.d_inner), *head, (c.d_inner, d)]
    qkv = [(c.d_attn, width), (c.d_attn, shared), (c.d_attn, shared)]
    block = [*qkv, (width, d), (d, 2 * c.d_mlp), (c.d_mlp, d), (d, d)]
    if c.lora_rank:
        block += [(d, c.lora_rank), (c.lora_rank, 2 * c.d_mlp)]
    if c.lora_rank_qkv:
        block += [pair for d_in, out in qkv for pair in ((d_in, c.lora_rank_qkv), (c.lora_rank_qkv, out))]
    return mixer * c.n_layers + block * c.n_invocations


def products_alone(c: ZambaConfig, tokens: int, dtype: torch.dtype, ours: bool = False) -> Callable[[], None]:
    """All matrix products of a prefill and nothing else: the floor of its time. The head sees one token.

    ours: by the lab's own `linear`. Inputs and outputs are buffers
    that are there; the weights are slices of one large buffer taken in turn, so that they come from memory as a model's do.
    """
    shapes = [(tokens, *pair) for pair in products(c)] + [(1, c.d_model, c.vocab_size)]
    largest = max(k * n for _, k, n in shapes)
    pool = torch.empty(max(largest, min(2**29, sum(k * n for _, k, n in shapes))), dtype=dtype).fill_(0.01)
    inputs = {(m, k): torch.full((m, k), 0.01, dtype=dtype) for m, k, _ in shapes}
    outputs = {(m, n): torch.empty(m, n, dtype=dtype) for m, _, n in shapes}
    work, at = [], 0
    for m, k, n in shapes:
        at = at if at + k * n <= len(pool) else 0
        work.append((inputs[m, k], pool[at : at + k * n].view(n, k).t(), outputs[m, n]))
        at += k * n

    def run():
        for x, weight, out in work:
            torch.mm(x, weight, out=out)

    @torch.inference_mode()
    def run_ours():
        for x, weight, _ in work:
            linear(x, weight.t())

    return run_ours if ours else run


def bytes_per_token(c: ZambaConfig, context: int, dtype: torch.dtype) -> int:
    """Bytes that decoding one token reads and writes at least: weights, keys and values, states.

    A shared block is counted at every invocation: between two of them a pass reads more than a cache holds. States and
    convolution inputs are read and written, keys and values of `context` positions read.
    """
    return accounting.cost(c, context, dtype).traffic


def kv_bytes_per_position(c: ZambaConfig, dtype: torch.dtype) -> int:
    return c.cache_bytes(1, dtype=dtype) - c.cache_bytes(0, dtype=dtype)
