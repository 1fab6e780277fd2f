"""Every switch of the architecture as one flat, frozen value, and what it costs (`config/cost.py`)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from zamba_lab.config import cost
from zamba_lab.config.presets import PRESETS

MIXERS = ("mamba2", "mamba1", "attention")
ACTIVATIONS = ("gelu", "gelu_tanh", "silu", "relu")
INITS = ("small", "matching", "authors", "reference")
LINKS = ("mixer", "stream")
OPTIONAL = ("attn_kv_heads", "attn_head_dim", "dt_rank", "norm_groups")  # may be None
SIZES = (
    "vocab_size",
    "d_model",
    "n_layers",
    "d_state",
    "expand",
    "headdim",
    "n_groups",
    "chunk_size",
    "attn_heads",
    "d_mlp",
    "max_context",
)
LEAST = dict.fromkeys((*SIZES, *OPTIONAL), 1) | dict.fromkeys(("d_conv", "n_shared_blocks", "lora_rank", "lora_rank_qkv"), 0)


@dataclass(frozen=True)
class ZambaConfig:
    """A hybrid language model, or one of the pure arms it is compared with. The defaults are a small Zamba2.

    Checked once, when made; vary it with `dataclasses.replace`, which checks again. A value is the switch: 0, None or
    () turn a part off, and a part that is off owns no parameters. `n_shared_blocks=0` and `hybrid_layers=()` both
    mean "no shared block" and are stored as both.

    Raises ValueError naming the rule and the values if the fields do not fit together.
    """

    # the backbone
    vocab_size: int = 4096
    d_model: int = 256
    n_layers: int = 12
    mixer: str = "mamba2"  # "mamba1", or "attention": a pre-norm transformer, the opponent
    d_state: int = 64
    d_conv: int = 4  # taps; 0: no convolution, SiLU alone
    expand: int = 2
    headdim: int = 64  # channels in one SSM head; Zamba-7B: 3712, so two heads
    n_groups: int = 1  # Mamba-2: heads in one group share B and C
    norm_groups: int | None = None  # Mamba-2: equal slices that the gated norm normalises separately; None: n_groups
    dt_rank: int | None = None  # Mamba-1; None: ceil(d_model / 16)
    chunk_size: int = 64  # tokens per chunk of the scan: speed only, the result is the same
    dt_min: float = 0.0  # lower clamp on the step size; 0.0 is what the released weights expect

    # the shared attention + MLP blocks
    n_shared_blocks: int = 2
    hybrid_layers: tuple[int, ...] = (3, 7, 11)  # depths with an invocation before their mixer
    block_order: tuple[int, ...] | None = None  # block of each invocation; None: 0, 1, .., 0, 1, .. (ABAB)
    concat_embedding: bool = True  # the block reads [x, x0], 2 d_model wide; False: x alone
    attn_heads: int = 8
    attn_kv_heads: int | None = None  # None: attn_heads; fewer: grouped-query attention
    attn_head_dim: int | None = None  # None: the block's width / attn_heads
    rope_theta: float | None = 10000.0  # None: no positions in attention (Zamba-7B, Zamba2-2.7B)
    d_mlp: int = 1024
    attn_gain: float = 1.0  # scale of the attention scores against the released one
    link_into: str = field(default="mixer", metadata={"choices": LINKS})  # what the link is added to; "stream": it stays
    activation: str = "gelu"  # of the gated MLP; "gelu" is the exact, erf one
    lora_rank: int = 16  # adapter on the MLP's first product, one per invocation; 0: none
    lora_rank_qkv: int = 0  # the same on each of q, k, v

    # details
    conv_bias: bool = True
    proj_bias: bool = False  # in the mixer's in_proj and out_proj
    mlp_bias: bool = False
    norm_eps: float = 1e-5
    tie_embeddings: bool = True  # the head is the embedding; has nothing to do with sharing blocks
    max_context: int = 4096  # tokens a sequence was trained with; information, not a limit
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | None = 2

    # the start of training (see initialisation.py)
    init: str = field(default="small", metadata={"choices": INITS})
    link_gain: float = 8.0  # "small" and "matching": scale of the link matrices against 1 / sqrt(d_model)

    def __post_init__(self) -> None:
        for name in ("hybrid_layers", "block_order"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, tuple(value))
        if not self.hybrid_layers or not self.n_shared_blocks:
            for name, off in (("hybrid_layers", ()), ("n_shared_blocks", 0), ("block_order", None)):
                object.__setattr__(self, name, off)
        check(self)
        if self.block_order == tuple(k % self.n_shared_blocks for k in range(self.n_invocations)):
            object.__setattr__(self, "block_order", None)
        if self.norm_groups == self.n_groups:
            object.__setattr__(self, "norm_groups", None)

    # --- what follows from the fields ---------------------------------------------------------------------------
    @property
    def d_inner(self) -> int:
        """Width of the mixer, in channels."""
        return self.expand * self.d_model

    @property
    def ssm_heads(self) -> int:
        return self.d_inner // self.headdim

    @property
    def conv_dim(self) -> int:
        """Channels of the convolution: x, and for Mamba-2 also B and C."""
        return self.d_inner + (2 * self.n_groups * self.d_state if self.mixer == "mamba2" else 0)

    @property
    def gated_norm_groups(self) -> int:
        """Equal slices of d_inner that a Mamba-2 mixer's gated norm normalises separately."""
        return self.n_groups if self.norm_groups is None else self.norm_groups

    @property
    def conv_state(self) -> int:
        """Inputs that the convolution carries from token to token."""
        return max(self.d_conv, 1) - 1

    @property
    def dt_width(self) -> int:
        """The rank of Mamba-1's step-size projection."""
        return math.ceil(self.d_model / 16) if self.dt_rank is None else self.dt_rank

    @property
    def n_invocations(self) -> int:
        return len(self.hybrid_layers)

    @property
    def blocks_by_invocation(self) -> tuple[int, ...]:
        """The shared block that each invocation uses, counted down the depth."""
        if self.block_order is not None:
            return self.block_order
        return tuple(k % self.n_shared_blocks for k in range(self.n_invocations))

    @property
    def d_attn(self) -> int:
        """Width of attention's input: 2 d_model where the embeddings are concatenated."""
        return 2 * self.d_model if self.concat_embedding and self.mixer != "attention" else self.d_model

    @property
    def kv_heads(self) -> int:
        return self.attn_heads if self.attn_kv_heads is None else self.attn_kv_heads

    @property
    def head_dim(self) -> int:
        """Channels in one attention head."""
        return self.d_attn // self.attn_heads if self.attn_head_dim is None else self.attn_head_dim

    @property
    def attn_scale(self) -> float:
        """What the scores are multiplied by: attn_gain (head_dim / 2)^-0.5 with the concatenation, head_dim^-0.5 without.

        The halving is the released models': their trainer took d_model / attn_heads for the head's width.
        """
        return self.attn_gain * (self.head_dim * self.d_model / self.d_attn) ** -0.5

    # --- what it costs --------------------------------------------------------------------------------------------
    @property
    def n_params(self) -> int:
        """Parameters, shared ones and a tied head counted once. Equals the sum of `numel` of the built model."""
        return cost.n_params(self)

    def flops_per_token(self, context: int) -> float:
        """Forward FLOPs of one token that sees `context` positions, itself included; every invocation counts."""
        return cost.flops_per_token(self, context)

    def cache_bytes(self, context: int, batch: int = 1, dtype: torch.dtype = torch.float32) -> int:
        """Bytes of the cache after `context` tokens without padding: `cache.nbytes` of a model of that dtype."""
        return cost.cache_bytes(self, context, batch, dtype)

    @staticmethod
    def preset(name: str) -> ZambaConfig:
        """The config of a published shape or of one of the project's own trained models. ValueError lists the names there are."""
        _rule(name in PRESETS, f"no preset {name!r}: there are {', '.join(PRESETS)}")
        return ZambaConfig(**PRESETS[name])

    @staticmethod
    def presets() -> tuple[str, ...]:
        """Every name that `preset` takes."""
        return tuple(PRESETS)


def check(config: ZambaConfig) -> None:
    """Raise ValueError on the first rule that a config breaks."""
    c = config
    for name, choices in (("mixer", MIXERS), ("activation", ACTIVATIONS), ("init", INITS), ("link_into", LINKS)):
        _rule(getattr(c, name) in choices, f"{name} must be one of {', '.join(choices)}: got {getattr(c, name)!r}")
    for name, least in LEAST.items():
        value = getattr(c, name)
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= least
        _rule(whole or (value is None and name in OPTIONAL), f"{name} must be an integer of {least} or more: got {value!r}")
    for name in ("norm_eps", "link_gain", "attn_gain"):
        _rule(getattr(c, name) > 0, f"{name} must be above 0: got {getattr(c, name)}")
    _rule(c.dt_min >= 0, f"dt_min must be 0 or more: got {c.dt_min}")
    _check_mixer(c)
    _check_attention(c)
    _check_invocations(c)
    _rule(
        c.init != "matching" or c.kv_heads == c.attn_heads,
        f"init='matching' begins with keys equal to queries, so it needs as many heads of both: got {c.attn_heads} and {c.kv_heads}",
    )


def _check_mixer(c: ZambaConfig) -> None:
    if c.mixer == "attention":
        _rule(
            c.n_shared_blocks == 0,
            "a transformer layer has its own attention and takes no shared block: with "
            f"mixer='attention' set n_shared_blocks=0, got {c.n_shared_blocks}",
        )
        return
    _divides("headdim", c.headdim, "d_inner", c.d_inner, f" (expand {c.expand} * d_model {c.d_model})")
    if c.mixer == "mamba2":
        _divides("n_groups", c.n_groups, "ssm_heads", c.ssm_heads, f" (d_inner {c.d_inner} / headdim {c.headdim})")
        _divides("norm_groups", c.gated_norm_groups, "ssm_heads", c.ssm_heads)


def _check_attention(c: ZambaConfig) -> None:
    if c.mixer != "attention" and not c.hybrid_layers:
        return
    if c.attn_head_dim is None:
        _divides("attn_heads", c.attn_heads, "attention's width", c.d_attn, f" (d_model {c.d_model})")
    _divides("attn_kv_heads", c.kv_heads, "attn_heads", c.attn_heads)
    if c.rope_theta is not None:
        _rule(c.rope_theta > 0, f"rope_theta must be above 0, or None for no positions: got {c.rope_theta}")
        _rule(
            c.head_dim % 2 == 0,
            f"rotary positions pair channels, so attn_head_dim must be even: got {c.head_dim} "
            f"(width {c.d_attn} / attn_heads {c.attn_heads}); or set rope_theta=None",
        )


def _check_invocations(c: ZambaConfig) -> None:
    depths, k = c.hybrid_layers, c.n_invocations
    _rule(list(depths) == sorted(set(depths)), f"hybrid_layers must increase strictly: got {depths}")
    _rule(all(0 <= i < c.n_layers for i in depths), f"hybrid_layers must lie in 0..{c.n_layers - 1} (n_layers {c.n_layers}): got {depths}")
    _rule(
        c.n_shared_blocks <= k,
        f"n_shared_blocks must be at most the number of invocations, or a block is never "
        f"used: got {c.n_shared_blocks} blocks, {k} hybrid_layers {depths}",
    )
    if c.block_order is not None:
        _rule(
            len(c.block_order) == k and set(c.block_order) == set(range(c.n_shared_blocks)),
            f"block_order names a block for each of the {k} invocations and uses each of the {c.n_shared_blocks} "
            f"blocks 0..{c.n_shared_blocks - 1}: got {c.block_order}",
        )


def block_name(block: int) -> str:
    """What a shared block is called wherever it is shown: A, B, ...; from the 27th on its number."""
    return chr(ord("A") + block) if block < 26 else str(block)


def _rule(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def _divides(name: str, value: int, of: str, whole: int, why: str = "") -> None:
    _rule(whole % value == 0, f"{name} must divide {of}: got {name} = {value}, {of} = {whole}{why}")
