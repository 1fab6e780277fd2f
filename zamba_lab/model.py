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

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from zamba_lab.blocks import Context, SharedBlock, make_layer
from zamba_lab.blocks.linear import Embedding, Linear
from zamba_lab.blocks.norm import RMSNorm
from zamba_lab.blocks.replay import one_token
from zamba_lab.cache import Cache, LayerCache
from zamba_lab.config import ZambaConfig
from zamba_lab.blocks.init import initialise
from zamba_lab.ops.attention import angles, visible_keys
from zamba_lab.native import direct
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

    `tokenizer` is the one that lay beside the loaded weights, or None.
    """

    def __init__(self, config: ZambaConfig):
        super().__init__()
        self.config = config
        self.tokenizer = None
        self.embedding = Embedding(config.vocab_size, config.d_model)
        self.layers = nn.ModuleList(make_layer(config, depth) for depth in range(config.n_layers))
        self.shared_blocks = nn.ModuleList(SharedBlock(config) for _ in range(config.n_shared_blocks))
        rotary = config.rope_theta is not None and (config.n_invocations or config.mixer == "attention")
        self.turn = partial(angles, p=config.head_dim, theta=config.rope_theta) if rotary else no_angles
        self.final_norm = RMSNorm(config.d_model, config.norm_eps)
        self.head = None if config.tie_embeddings else Linear(config.d_model, config.vocab_size, bias=False)
        self.run = run_layer
        if self.embedding.weight.device.type != "meta":
            initialise(self, config)

    def forward(self, ids: Tensor, mask: Tensor | None = None, trace=OFF, targets: Tensor | None = None) -> Tensor:
        """Logits of every position; or the loss, for which they need not all be there at once.

        Args:
            ids: (b, l) token ids, int64 or int32, l >= 1, 0 <= id < vocab_size.
            mask: (b, l), 1 or True at tokens and 0 at padding, which may stand anywhere; None: no padding.
                The logits of a token do not depend on padding; those at padding mean nothing.
            trace: a `Trace` that records or edits activations.
            targets: (b, l), the right id to follow each position, or -100 where none is asked for.

        Returns: (b, l, v) logits; with targets the sum of their -log p, in float32 or wider. Raises ValueError if ids, mask or
        the targets' shape break a rule above.
        """
        mask = check_tokens(ids, mask, None, self.config.vocab_size)
        if targets is not None and targets.shape != ids.shape:
            raise ValueError(f"targets must have the shape of ids, {tuple(ids.shape)}: got {tuple(targets.shape)}")
        return self._pass(ids, None, mask, unless_idle(trace), False, self.run, targets=targets)[0]

    def extend(
        self, ids: Tensor, cache: Cache | None = None, mask: Tensor | None = None, trace=OFF, last_only: bool = False
    ) -> tuple[Tensor, Cache]:
        """Append l >= 1 tokens to what the cache holds: prefill, chunked prefill and decoding in one.

        Args:
            ids, mask, trace: as `forward`, for the new tokens; the cache remembers the past's padding.
            cache: from an earlier call, unchanged by this one; None: start afresh.
            last_only: logits of each row's last real token only, (b, 1, v); the others are never computed.

        With last_only, no trace and no gradients, a long prompt is taken in pieces of PREFILL tokens: its workspace is
        theirs, however long it is. With padding, too, if each row's last token is in the last piece.

        Returns: (b, l, v) logits of the new tokens, and the extended cache.
        """
        mask, trace = check_tokens(ids, mask, cache, self.config.vocab_size), unless_idle(trace)
        if (
            last_only
            and ids.shape[1] > PREFILL
            and trace is OFF
            and not torch.is_grad_enabled()
            and (mask is None or mask[:, -PREFILL:].any(1).all())
        ):
            expected = ids.shape[1] + (0 if cache is None else cache.length)
            for start in range(0, ids.shape[1] - PREFILL, PREFILL):
                at = slice(start, min(start + PREFILL, ids.shape[1] - PREFILL))
                _, cache = self._pass(ids[:, at], cache, None if mask is None else mask[:, at], OFF, True, run_layer, expected)
            ids, mask = ids[:, -PREFILL:], None if mask is None else mask[:, -PREFILL:]
        return self._pass(ids, cache, mask, trace, last_only, run_layer)

    def _pass(
        self,
        ids: Tensor,
        cache: Cache | None,
        mask: Tensor | None,
        trace,
        last_only: bool,
        run: Callable,
        expected: int = 0,
        targets: Tensor | None = None,
    ) -> tuple[Tensor, Cache]:
        """All of a pass on checked tokens. run: how a layer is run, `run_layer` or `run_layer_twice`. expected: see Context."""
        trace.start()
        ctx, cache = self._begin(trace("embed", self.embedding(ids)), mask, cache, trace, expected)
        walk = partial(self._walk, last_only=last_only, trace=trace, run=run, targets=targets)
        logits, layers = one_token(self, walk, ctx, cache) if ctx.step and targets is None else walk(ctx, cache)
        trace.finish()
        return logits, replace(cache, layers=tuple(layers))

    def _walk(
        self, ctx: Context, cache: Cache, last_only: bool, trace, run: Callable, targets: Tensor | None
    ) -> tuple[Tensor, list[LayerCache]]:
        """Down the depth: the logits, or the loss, and what each depth carries."""
        x, layers = ctx.x0, []
        for i, (layer, block) in enumerate(zip(self.layers, self.blocks_by_depth())):
            at = trace.at(f"layers.{i}")
            x, carried = run(layer, at("resid_in", x), block, ctx, cache.layers[i], at)
            x = at("resid_out", x)
            layers.append(carried)
        if targets is not None:
            return self._loss(x, targets, trace), layers
        return self._logits(last_real(x, ctx.mask) if last_only else x, trace), layers

    def checkpointing(self, on: bool) -> None:
        """Whether `forward` with gradients keeps only each layer's input and computes the layer again for its gradient."""
        self.run = run_layer_twice if on else run_layer

    def blocks_by_depth(self) -> list[SharedBlock | None]:
        """The shared block that runs before each depth's mixer, or None."""
        blocks = dict(zip(self.config.hybrid_layers, self.config.blocks_by_invocation))
        return [self.shared_blocks[blocks[i]] if i in blocks else None for i in range(self.config.n_layers)]

    def _begin(self, x0: Tensor, mask: Tensor | None, cache: Cache | None, trace, expected: int) -> tuple[Context, Cache]:
        """What the layers of this pass share, and the cache with the new positions counted in."""
        b, l, _ = x0.shape
        past = Cache(tuple(LayerCache() for _ in self.layers), 0, b) if cache is None else cache
        keys = _join_masks(past, mask, b, l, x0.device)
        if keys is None:
            positions = torch.arange(past.length, past.length + l, device=x0.device)[None]
        else:
            positions = (keys.cumsum(1) - 1).clamp(min=0)[:, past.length :]
        visible = None if keys is None else visible_keys(l, past.length + l, keys, x0.device)
        turn = self.turn(positions, x0.dtype)
        step = l == 1 and mask is None and trace is OFF and direct.serves(x0)
        return Context(x0, mask, visible, turn, step, expected), replace(past, length=past.length + l, mask=keys)

    def _logits(self, x: Tensor, trace) -> Tensor:
        x = trace("final_norm", self.final_norm(x))
        return trace("logits", self.embedding.logits(x) if self.head is None else self.head(x))

    def _loss(self, x: Tensor, targets: Tensor, trace) -> Tensor:
        weight = getattr(self.embedding if self.head is None else self.head, "weight", None)  # int8: none
        if trace is OFF and in_pieces(x, weight):
            return loss_in_pieces(self.final_norm(x), weight, targets)
        return summed_loss(self._logits(x, trace), targets)


def run_layer(layer: nn.Module, x: Tensor, block: SharedBlock | None, ctx: Context, cache: LayerCache, trace) -> tuple[Tensor, LayerCache]:
    return layer(x, block, ctx, cache, trace)


def run_layer_twice(
    layer: nn.Module, x: Tensor, block: SharedBlock | None, ctx: Context, cache: LayerCache, trace
) -> tuple[Tensor, LayerCache]:
    """`run_layer`, but where there are gradients only x is kept for them, and no cache comes out.

    The invocation before a mixer runs again with it: a shared block's activations are the larger part. A mixer's native
    operator, which by itself keeps its input, then keeps nothing either.
    """
    if not torch.is_grad_enabled() or trace is not OFF:
        return run_layer(layer, x, block, ctx, cache, trace)
    y = checkpoint(lambda x: layer(x, block, ctx, cache, trace)[0], x, use_reentrant=False, preserve_rng_state=False)
    return y, LayerCache()


def no_angles(positions: Tensor, dtype: torch.dtype) -> None:
    """Of a model without rotary positions."""


def check_tokens(ids: Tensor, mask: Tensor | None, cache: Cache | None, vocab_size: int) -> Tensor | None:
    """Raise ValueError if the arguments of a pass break a rule; return the mask as bool, or None if it hides nothing."""
    if ids.ndim != 2 or ids.dtype not in (torch.int32, torch.int64) or 0 in ids.shape:
        raise ValueError(
            f"ids must be int64 or int32 of shape (batch, length), both at least 1: got {tuple(ids.shape)}, "
            f"{ids.dtype}" + (" (an empty prompt: begin with the bos token)" if 0 in ids.shape else "")
        )
    low, high = ids.aminmax()
    if low < 0 or high >= vocab_size:
        raise ValueError(f"ids must lie in 0..{vocab_size - 1} (vocab_size {vocab_size}): got {int(low)}..{int(high)}")
    if cache is not None and cache.batch != len(ids):
        raise ValueError(f"ids must have the cache's batch size: got {len(ids)} rows, the cache holds {cache.batch}")
    if mask is None:
        return None
    if mask.shape != ids.shape:
        raise ValueError(f"mask must have the shape of ids: got {tuple(mask.shape)}, ids {tuple(ids.shape)}")
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError(f"mask must hold 1 at tokens and 0 at padding and nothing else: got values {mask.unique()[:5].tolist()}")
    return None if mask.all() else mask.bool()


def _join_masks(past: Cache, mask: Tensor | None, b: int, l: int, device) -> Tensor | None:
    """The mask over past and new positions, (b, s), or None if there never was padding."""
    if past.mask is None and mask is None:
        return None
    old, new = (
        torch.ones(b, length, dtype=torch.bool, device=device) if part is None else part
        for part, length in ((past.mask, past.length), (mask, l))
    )
    return torch.cat([old, new], dim=1)


def last_real(x: Tensor, mask: Tensor | None) -> Tensor:
    """Each row's last position that is not padding (the last one in a row of padding only). x: (b, l, d) -> (b, 1, d)"""
    if mask is None:
        return x[:, -1:]
    index = torch.arange(mask.shape[1], device=x.device)
    last = torch.where(mask.any(1), (mask * index).argmax(1), mask.shape[1] - 1)
    return x[torch.arange(len(x), device=x.device), last][:, None]
