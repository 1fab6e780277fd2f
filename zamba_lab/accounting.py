"""What a model costs, by formula: parameters, FLOPs, bytes stored and bytes moved; of ours and of dense transformers.

`cost(config, context)` takes a `ZambaConfig`, a `Dense` or the name of either, and builds nothing. `crossover` says from which
context on one needs less than another. Tests compare the formulas with built models: `numel`, torch's FLOP counter, `nbytes`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch

from zamba_lab.config import ZambaConfig
from zamba_lab.config.cost import attention_params, mlp_params

BF16 = torch.bfloat16
PARTS = ("embedding", "head", "mixers", "transformer layers", "shared blocks", "adapters", "links")
KEEP = ("embedding", "head", "adapters")  # what `quantize` leaves as it is unless told otherwise
PACKED_ROWS = 64  # packed int4 matrices have a multiple of so many rows
GROUPS = (256, 128, 64, 32)  # numbers of int4 weights that may share a scale


# --- dense transformers -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Dense:
    """A dense pre-norm transformer with gated MLPs and no biases in its products, by its shape.

    heads, kv_heads, d_mlp, window: one value, or one a layer. window: positions that attention sees; None: all. norms: how many
    weights a layer's norms have, final_norm: the last norm; None: those of RMSNorms, one before attention and one before the MLP.
    """

    vocab_size: int
    d_model: int
    n_layers: int
    heads: int | tuple[int, ...]
    kv_heads: int | tuple[int, ...]
    head_dim: int
    d_mlp: int | tuple[int, ...]
    tie_embeddings: bool = False
    window: int | tuple[int | None, ...] | None = None
    norms: int | None = None
    final_norm: int | None = None

    def __post_init__(self) -> None:
        for name in ("heads", "kv_heads", "d_mlp", "window"):
            value = getattr(self, name)
            if isinstance(value, tuple) and len(value) != self.n_layers:
                raise ValueError(f"{name} must be one number or one a layer, {self.n_layers}: got {len(value)}")

    def each(self, name: str) -> tuple:
        """A field's value in each layer."""
        value = getattr(self, name)
        return value if isinstance(value, tuple) else (value,) * self.n_layers

    @property
    def n_params(self) -> int:
        matrices = sum(m.stored * m.out * m.width for m in dense_matrices(self))
        norms = self.n_layers * (2 * self.d_model if self.norms is None else self.norms)
        return matrices + norms + (self.final_norm or self.d_model)

    def flops_per_token(self, context: int) -> float:
        """As `ZambaConfig.flops_per_token`."""
        seen = (self.head_dim * h * min(context, w or context) for h, w in zip(self.each("heads"), self.each("window")))
        return 2.0 * (sum(m.read * m.out * m.width for m in dense_matrices(self)) + 2 * sum(seen))

    def cache_bytes(self, context: int, batch: int = 1, dtype: torch.dtype = BF16) -> int:
        """Keys and values; a layer with a window keeps no more positions than it."""
        kept = sum(h * min(context, w or context) for h, w in zip(self.each("kv_heads"), self.each("window")))
        return 2 * batch * self.head_dim * kept * dtype.itemsize


_OPENELM_HEADS = (12,) * 4 + (16,) * 14 + (20,) * 12 + (24,) * 6
_OPENELM_MLP = tuple(int((0.5 + 0.1 * i) * 3072 + 128 + 1e-6) // 256 * 256 for i in range(36))  # 0.5 to 4 times the width
_GEMMA_WINDOWS = tuple(4096 if i % 2 == 0 else None for i in range(26))
DENSE = {
    # arXiv 2404.14219, microsoft/Phi-3-mini-4k-instruct; attention to all positions
    "phi-3-mini": Dense(32064, 3072, 32, 32, 32, 96, 8192),
    # arXiv 2408.00118, google/gemma-2-2b: four norms a layer, every other layer sees 4,096 positions
    "gemma-2-2b": Dense(256000, 2304, 26, 8, 4, 256, 9216, tie_embeddings=True, window=_GEMMA_WINDOWS, norms=4 * 2304),
    # arXiv 2407.21783, meta-llama/Meta-Llama-3-8B
    "llama-3-8b": Dense(128256, 4096, 32, 32, 8, 128, 14336),
    # stabilityai/stablelm-3b-4e1t: LayerNorms, with biases
    "stablelm-3b": Dense(50304, 2560, 32, 32, 32, 80, 6912, norms=4 * 2560, final_norm=2 * 2560),
    # arXiv 2404.14619, apple/OpenELM-3B: heads and MLPs grow with depth, queries and keys are normed
    "openelm-3b": Dense(
        *(32000, 3072, 36, _OPENELM_HEADS, tuple(h // 4 for h in _OPENELM_HEADS), 128, _OPENELM_MLP),
        tie_embeddings=True,
        norms=2 * 3072 + 2 * 128,
    ),
}
Shape = ZambaConfig | Dense


def shape(config: Shape | str) -> Shape:
    """The config of a name: a preset's or a dense transformer's. Raises ValueError, listing the names, if there is none."""
    if not isinstance(config, str):
        return config
    if config in DENSE:
        return DENSE[config]
    if config not in ZambaConfig.presets():
        raise ValueError(f"a config is a ZambaConfig, a Dense or one of {', '.join((*ZambaConfig.presets(), *DENSE))}: got {config!r}")
    return ZambaConfig.preset(config)


# --- matrices -----------------------------------------------------------------------------------------------------


class Matrix(NamedTuple):
    """Weight matrices (out, width) of one kind and size: `stored` of them, of which a token reads `read`, with repetitions.

    part: the part of the model, by the names that `quantize` has.
    """

    part: str
    out: int
    width: int
    stored: int
    read: int


def token_matrices(c: Shape) -> list[Matrix]:
    """The embedding and the head, which may be one matrix. Of the embedding a token reads one row, counted as none."""
    untied = [Matrix("embedding", c.vocab_size, c.d_model, 1, 0), Matrix("head", c.vocab_size, c.d_model, 1, 1)]
    return [Matrix("embedding", c.vocab_size, c.d_model, 1, 1)] if c.tie_embeddings else untied


def dense_matrices(c: Dense) -> list[Matrix]:
    """All matrices of a dense transformer."""
    found = token_matrices(c)
    for h, kv, d_mlp in zip(c.each("heads"), c.each("kv_heads"), c.each("d_mlp")):
        q, k = h * c.head_dim, kv * c.head_dim
        pairs = (q, c.d_model), (k, c.d_model), (k, c.d_model), (c.d_model, q), (2 * d_mlp, c.d_model), (c.d_model, d_mlp)
        found += [Matrix("transformer layers", *pair, 1, 1) for pair in pairs]
    return found


def hybrid_matrices(c: ZambaConfig) -> list[Matrix]:
    """All matrices of a model of ours; Mamba-1's x_proj and dt_proj, which are never rounded, are left out."""
    d, n, k, kinds = c.d_model, c.n_layers, c.n_invocations, c.n_shared_blocks
    q, kv = c.attn_heads * c.head_dim, c.kv_heads * c.head_dim
    block = (q, c.d_attn), (kv, c.d_attn), (kv, c.d_attn), (d, q), (2 * c.d_mlp, d), (d, c.d_mlp)
    found = token_matrices(c)
    if c.mixer == "attention":
        return found + [Matrix("transformer layers", *pair, n, n) for pair in block]
    width = c.d_inner + c.conv_dim + c.ssm_heads if c.mixer == "mamba2" else 2 * c.d_inner
    found += [Matrix("mixers", width, d, n, n), Matrix("mixers", d, c.d_inner, n, n)]
    found += [Matrix("shared blocks", *pair, kinds, k) for pair in block]
    adapters = [(2 * c.d_mlp, d, c.lora_rank)] + [(out, c.d_attn, c.lora_rank_qkv) for out in (q, kv, kv)]
    found += [Matrix("adapters", *pair, k, k) for out, d_in, r in adapters if r for pair in ((r, d_in), (out, r))]
    return found + [Matrix("links", d, d, k, k)]


def matrices(c: Shape) -> list[Matrix]:
    return [m for m in (dense_matrices(c) if isinstance(c, Dense) else hybrid_matrices(c)) if m.stored]


def group_of(width: int, asked: int) -> int | None:
    """How many int4 weights of a row share a scale: as many as asked for, or the next of GROUPS below that divides it; None: none does."""
    return next((group for group in GROUPS if group <= asked and width % group == 0), None)


def packed_bytes(out: int, width: int, bits: int, group_size: int) -> int | None:
    """Bytes of a quantised matrix with its scales; None if it cannot be packed."""
    if bits == 8:
        return out * (width + torch.float32.itemsize)
    rows, group = -(-out // PACKED_ROWS) * PACKED_ROWS, group_of(width, group_size)
    return None if group is None else rows * (width // 2 + width // group * 2 * BF16.itemsize)


# --- the cost -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """What a model costs at a context of one sequence. FLOPs count a multiply-add as two; bytes are those of the dtype or bits asked for.

    prefill_flops: to read the context and predict one token. decode_flops: of the context's last token. train_flops: forward and
    backward over the context, three times the forward. weight_traffic: bytes of weights that a decoded token reads, a shared block's
    at each invocation. kv_bytes: keys and values; kv_bytes_per_invocation: their mean over invocations, or layers. state_bytes: SSM
    and conv states. traffic: weights, keys and values read, states read and written, without activations. memory: all that is held.
    """

    params: int
    weight_bytes: int
    prefill_flops: float
    decode_flops: float
    train_flops: float
    weight_traffic: int
    kv_bytes: int
    kv_bytes_per_invocation: float
    state_bytes: int

    @property
    def traffic(self) -> int:
        return self.weight_traffic + self.kv_bytes + 2 * self.state_bytes

    @property
    def memory(self) -> int:
        return self.weight_bytes + self.kv_bytes + self.state_bytes


def cost(
    config: Shape | str,
    context: int = 4096,
    dtype: torch.dtype = BF16,
    bits: int | None = None,
    group_size: int = 64,
    keep: Iterable[str] = KEEP,
) -> Cost:
    """What a model costs at a context, without building it.

    Args:
        config: a ZambaConfig, a Dense, a preset's name ("zamba2-2.7b") or a dense transformer's ("phi-3-mini", see DENSE).
        context: tokens, 1 or more. dtype: of weights, keys, values and convolution inputs; states are float32 or wider.
        bits, group_size, keep: as `zl.quantize` takes them: 8 or 4; None: not quantised.

    Raises ValueError if a name is unknown, context below 1, or bits or group_size another number.
    """
    c, keep = shape(config), set(keep)
    if context < 1 or bits not in (None, 4, 8) or group_size not in GROUPS or not keep <= set(PARTS):
        got = f"got {context}, {bits}, {group_size} and {tuple(sorted(keep))}"
        raise ValueError(f"context must be 1 or more, bits 8, 4 or None, group_size of {GROUPS}, keep of {PARTS}: {got}")
    states, layers = c.cache_bytes(0, dtype=dtype), kv_layers(c)
    kv = c.cache_bytes(context, dtype=dtype) - states
    forward, head = all_flops(c, context), 2.0 * c.vocab_size * c.d_model
    size = [dtype.itemsize * numbers for numbers in (c.n_params, params_read(c))]
    for m in matrices(c):
        packed = None if bits is None or m.part in keep else packed_bytes(m.out, m.width, bits, group_size)
        if packed is not None:
            size = [n - times * (m.out * m.width * dtype.itemsize - packed) for n, times in zip(size, (m.stored, m.read))]
    return Cost(
        params=c.n_params,
        weight_bytes=size[0],
        prefill_flops=forward - (context - 1) * head,
        decode_flops=c.flops_per_token(context),
        train_flops=3 * forward,
        weight_traffic=size[1],
        kv_bytes=kv,
        kv_bytes_per_invocation=kv / layers if layers else 0.0,
        state_bytes=states,
    )


def kv_layers(c: Shape) -> int:
    """How often a token's keys and values are kept: in each layer with attention, or at each invocation."""
    return c.n_layers if isinstance(c, Dense) or c.mixer == "attention" else c.n_invocations


def params_read(c: Shape) -> int:
    """How many weights one token reads: a shared block's at every invocation, the embedding only where it is the head, too."""
    unread = 0 if c.tie_embeddings else c.vocab_size * c.d_model
    if isinstance(c, Dense) or c.mixer == "attention":
        return c.n_params - unread
    block = attention_params(c) + mlp_params(c) + c.d_attn + c.d_model
    return c.n_params - unread + (c.n_invocations - c.n_shared_blocks) * block


def kinks(c: Shape, limit: int) -> list[int]:
    """The contexts between which a token's cost is linear in the context, a sum over tokens quadratic: 1, the windows, the limit."""
    windows = {w for w in c.each("window") if w} if isinstance(c, Dense) else set()
    return sorted({1, limit, *(w for w in windows if w < limit)})


def all_flops(c: Shape, context: int) -> float:
    """Forward FLOPs of tokens 1..context, each of which sees those before it: an arithmetic series between two kinks."""
    edges, total = kinks(c, context), c.flops_per_token(1)
    for before, last in zip(edges, edges[1:]):
        total += (last - before) * (c.flops_per_token(before + 1) + c.flops_per_token(last)) / 2
    return total


def crossover(a: Shape | str, b: Shape | str, of: str = "memory", limit: int = 2**20, **options) -> int | None:
    """The context from which on a needs less than b, up to the limit: 1 if always; None if not at the limit.

    of: a name of `Cost`: "memory", "traffic", "decode_flops", ... options: those of `cost`. Errors as `cost`.
    """

    def lead(context: int) -> float:
        return getattr(cost(b, context, **options), of) - getattr(cost(a, context, **options), of)

    a, b = shape(a), shape(b)
    if lead(limit) <= 0:
        return None
    edges = sorted({*kinks(a, limit), *kinks(b, limit)})
    for low, high in list(zip(edges, edges[1:])):  # a sum over tokens may fall and rise again between them: its least is an edge, too
        first, last = lead(low + 1) - lead(low), lead(high) - lead(high - 1)
        if first < 0 < last:
            edges.append(low + 1 + int((high - low - 1) * first / (first - last)))
    low = max((edge for edge in edges if lead(edge) <= 0), default=0)  # the last edge at which a needs as much or more
    high = min(edge for edge in edges if edge > low)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if lead(middle) > 0 else (middle, high)
    return high
