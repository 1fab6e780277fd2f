"""Causal multi-head attention with the invocation's adapters, rotary positions and a KV cache."""

from typing import cast

from einops import rearrange
from torch import Tensor, nn

from zamba_lab.blocks.context import Context
from zamba_lab.blocks.linear import Linear
from zamba_lab.blocks.lora import Adapters, adapted
from zamba_lab.cache import LayerCache
from zamba_lab.config import ZambaConfig
from zamba_lab.ops.attention import attend, attention_probs, attention_scores, rotate, weigh
from zamba_lab.trace import OFF


class Attention(nn.Module):
    """o( softmax(q k^T * attn_scale) v ), q, k, v linear in the input plus this invocation's adapters."""

    def __init__(self, config: ZambaConfig):
        super().__init__()
        c, width = config, config.attn_heads * config.head_dim
        self.config = c
        self.q = Linear(c.d_attn, width, bias=False)
        self.k = Linear(c.d_attn, c.kv_heads * c.head_dim, bias=False)
        self.v = Linear(c.d_attn, c.kv_heads * c.head_dim, bias=False)
        self.o = Linear(width, c.d_model, bias=False)

    def forward(self, u: Tensor, ctx: Context, cache: LayerCache, adapters: Adapters, trace=OFF) -> tuple[Tensor, LayerCache]:
        """u: (b, l, d_attn), normed. Returns the output (b, l, d) and all keys and values (b, h', s, p) so far."""
        c = self.config
        q, k, v = (adapted(part, adapters, name, u, trace) for name, part in (("q", self.q), ("k", self.k), ("v", self.v)))
        q, k, v = (rearrange(part, "b l (h p) -> b h l p", p=c.head_dim) for part in (q, k, v))
        if ctx.rotary is not None:
            q, k = rotate(q, *ctx.rotary), rotate(k, *ctx.rotary)
        q, k, v = trace("q", q), trace("k", k), trace("v", v)
        kv = cache.with_kv(k, v, ctx.final_length)
        keys, values = cast(tuple[Tensor, Tensor], (kv.k, kv.v))  # of a depth with attention: never None
        if trace.wants("attn_scores") or trace.wants("attn_probs"):
            scores = trace("attn_scores", attention_scores(q, keys, c.attn_scale, ctx.visible))
            mixed = weigh(trace("attn_probs", attention_probs(scores)), values)
        else:
            mixed = attend(q, keys, values, c.attn_scale, ctx.visible)
        mixed = trace("attn_mixed", rearrange(mixed, "b h l p -> b l h p"))
        return trace("attn_out", self.o(rearrange(mixed, "b l h p -> b l (h p)"))), kv
