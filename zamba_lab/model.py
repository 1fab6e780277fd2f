"""Zamba: the walk through depth. Read this file first.

    ids --embedding--> x0 = x
                        |
      every depth       |   x = x + mixer( norm(x) )                      a Mamba layer (blocks/mamba2.py, mamba1.py)
                        |
      hybrid depths     |   t = link_k( block( [x, x0], adapters_k ) )    k-th invocation of a shared block
                        |   x = x + mixer( norm(x + t) )                  (blocks/shared.py); with link_into="stream"
                        |                                                 x = x + t, then the line for every depth
                        v
                  final norm --> head --> logits

A shared block's weights exist once, in `shared_blocks`; a depth gets its block as an argument of the call. With
`mixer="attention"` each depth is a standard transformer layer instead, and nothing is shared.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zamba_lab.blocks import Context, Layer, SharedBlock, make_layer
from zamba_lab.blocks.inputs import check_targets, check_tokens, last_real, last_tokens_lie_within, real_positions
from zamba_lab.blocks.linear import Embedding, Linear
from zamba_lab.blocks.norm import RMSNorm
from zamba_lab.cache import Cache, LayerCache, Origin
from zamba_lab.config import ZambaConfig
from zamba_lab.initialisation import initialise
from zamba_lab.ops.attention import angles, visible_keys
from zamba_lab.ops.loss import in_pieces, loss_in_pieces, summed_loss
from zamba_lab.trace import OFF, unless_idle

# Enough rows to keep a matrix product busy, few enough that what they pass through stays below the weights.
PREFILL = 512


class Zamba(nn.Module):
    """The model of a config, initialised as `config.init` says (seed it with torch.manual_seed).

        model = Zamba(ZambaConfig(d_model=128, n_layers=4, hybrid_layers=(1, 3)))
        logits = model(ids)                          # (b, l) -> (b, l, v)
        logits, cache = model.extend(ids)            # the same, and what decoding goes on from
        logits, cache = model.extend(next_ids, cache)

    `tokenizer` is the one that lay beside the loaded weights, or None. With `recompute` set to True, `forward` with gradients keeps only
    each layer's input, and computes the layer, its invocation included, again for its gradient; a pass with a trace is kept.
    """

    def __init__(self, config: ZambaConfig):
        super().__init__()
        self.config = config
        self.tokenizer = None
        self.recompute = False
        self.embedding = Embedding(config.vocab_size, config.d_model)
        self.layers = cast(Sequence[Layer], nn.ModuleList(make_layer(config, depth) for depth in range(config.n_layers)))
        self.shared_blocks = cast(Sequence[SharedBlock], nn.ModuleList(SharedBlock(config) for _ in range(config.n_shared_blocks)))
        theta = config.rope_theta if config.n_invocations or config.mixer == "attention" else None
        self.rotary = no_rotary if theta is None else partial(angles, p=config.head_dim, theta=theta)
        self.final_norm = RMSNorm(config.d_model, config.norm_eps)
        self.head = None if config.tie_embeddings else Linear(config.d_model, config.vocab_size, bias=False)
        if self.embedding.weight.device.type != "meta":
            initialise(self, config)

    def forward(self, ids: Tensor, mask: Tensor | None = None, trace=OFF, targets: Tensor | None = None) -> Tensor:
        """Logits of every position; or the loss, for which they need not all exist at the same time.

        Args:
            ids: (b, l) token ids, int64 or int32, l >= 1, 0 <= id < vocab_size.
            mask: (b, l), 1 or True at tokens and 0 at padding, which may stand anywhere; None: no padding.
                The logits of a token do not depend on padding; those at padding mean nothing.
            trace: a `Trace` that records or edits activations.
            targets: (b, l), the right id to follow each position, or -100 where none is asked for.

        Returns: (b, l, v) logits; with targets the sum of their -log p, in float32 or wider. Raises ValueError if ids, mask or
        targets break a rule above.
        """
        trace = unless_idle(trace)
        recompute = self.recompute and torch.is_grad_enabled() and trace is OFF
        with trace.one_pass():
            mask = check_tokens(ids, mask, None, self.config.vocab_size)
            targets = check_targets(targets, ids, self.config.vocab_size)
            x, _ = self.walk(ids, None, mask, trace, recompute=recompute)
            return self.logits(x, trace) if targets is None else self.loss(x, targets, trace)

    def extend(
        self, ids: Tensor, cache: Cache | None = None, mask: Tensor | None = None, trace=OFF, last_only: bool = False
    ) -> tuple[Tensor, Cache]:
        """Append l >= 1 tokens to what the cache holds: prefill, chunked prefill and decoding in one.

        Args:
            ids, mask, trace: as `forward`, for the new tokens; the cache remembers the past's padding.
            cache: from an earlier call, unchanged by this one; None: start afresh.
            last_only: logits of each row's last real token only, (b, 1, v); the others are never computed.

        With last_only, no trace and no gradients, a long prompt is read in pieces of PREFILL tokens: its workspace is
        theirs, however long it is. With padding, too, if each row's last token is in the last piece.

        Returns: (b, l, v) logits of the new tokens, and the extended cache. Raises ValueError as `forward` does.
        """
        trace = unless_idle(trace)
        with trace.one_pass():
            mask = check_tokens(ids, mask, cache, self.config.vocab_size)
            l, past = ids.shape[1], 0 if cache is None else cache.length
            start = 0
            if last_only and trace is OFF and not torch.is_grad_enabled() and last_tokens_lie_within(mask, l, PREFILL):
                start = l - PREFILL
            for i in range(0, start, PREFILL):
                piece = slice(i, min(i + PREFILL, start))
                _, cache = self.walk(ids[:, piece], cache, None if mask is None else mask[:, piece], trace, final_length=past + l)
            mask = None if mask is None else mask[:, start:]
            x, extended = self.walk(ids[:, start:], cache, mask, trace, final_length=past + l)
            return self.logits(last_real(x, mask) if last_only else x, trace), extended

    def walk(
        self, ids: Tensor, cache: Cache | None, mask: Tensor | None, trace, final_length: int = 0, recompute: bool = False
    ) -> tuple[Tensor, Cache]:
        """Down the depth, on checked tokens. Returns the stream after the last layer, (b, l, d), and the extended cache.

        final_length: positions once the prompt that these tokens are a piece of is read. recompute: as the attribute.
        """
        x0 = trace("embed", self.embedding(ids))
        ctx, past = self.context(x0, mask, cache, final_length)
        x, layers = x0, []
        for i, (layer, block) in enumerate(zip(self.layers, self.blocks_by_depth())):
            at = trace.at(f"layers.{i}")
            run = partial(recomputed, layer) if recompute else layer
            x, carried = run(at("resid_in", x), block, ctx, past.layers[i], at)
            x = at("resid_out", x)
            layers.append(carried)
        return x, replace(past, layers=tuple(layers), **self.source(ids, cache))

    def source(self, ids: Tensor, cache: Cache | None) -> dict:
        """What the extended cache remembers of where it comes from; nothing in a compiled model, whose shapes it would change."""
        known = not torch.compiler.is_compiling() and (cache is None or cache.tokens is not None or cache.length == 0)
        if not known:
            return dict(tokens=None, origin=None)
        past = None if cache is None else cache.tokens
        return dict(tokens=ids.clone() if past is None else torch.cat([past, ids], dim=1), origin=Origin(self))

    def blocks_by_depth(self) -> list[SharedBlock | None]:
        """The shared block that runs before each depth's mixer, or None."""
        blocks = dict(zip(self.config.hybrid_layers, self.config.blocks_by_invocation))
        return [self.shared_blocks[blocks[i]] if i in blocks else None for i in range(self.config.n_layers)]

    def context(self, x0: Tensor, mask: Tensor | None, cache: Cache | None, final_length: int) -> tuple[Context, Cache]:
        """What the layers of this pass share, and the cache with the new positions counted in."""
        b, l, _ = x0.shape
        past = Cache(tuple(LayerCache() for _ in self.layers), 0, b) if cache is None else cache
        keys, positions = real_positions(past.mask, past.length, mask, l, x0)
        visible = None if keys is None else visible_keys(l, past.length + l, keys, x0.device)
        ctx = Context(x0, mask, visible, self.rotary(positions, x0.dtype), final_length)
        return ctx, replace(past, length=past.length + l, mask=keys)

    def logits(self, x: Tensor, trace=OFF) -> Tensor:
        """x: (b, l, d), the stream after the last layer. Returns (b, l, v)."""
        x = trace("final_norm", self.final_norm(x))
        return trace("logits", self.embedding.logits(x) if self.head is None else self.head(x))

    def loss(self, x: Tensor, targets: Tensor, trace=OFF) -> Tensor:
        """The summed -log p of the targets, (b, l); of many, a piece of the logits at a time."""
        weight = getattr(self.embedding if self.head is None else self.head, "weight", None)  # int8: none
        if trace is OFF and weight is not None and in_pieces(x, weight):
            return loss_in_pieces(self.final_norm(x), weight, targets)
        return summed_loss(self.logits(x, trace), targets)


def recomputed(layer: nn.Module, x: Tensor, *shared) -> tuple[Tensor, LayerCache]:
    """The layer's output, of which only the input is kept for the gradient; no cache comes out, which would be kept too."""
    return checkpoint(lambda x: layer(x, *shared)[0], x, use_reentrant=False, preserve_rng_state=False), LayerCache()


def no_rotary(positions: Tensor, dtype: torch.dtype) -> None:
    """The rotary angles of a model without rotary positions."""
