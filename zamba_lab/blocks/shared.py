"""The shared attention + MLP block, and what each of its invocations owns.

A block's weights are used at several depths. Each invocation has only its adapters, its link matrix and its keys and
values to itself (arXiv 2405.16712, figure 2; adapters and two alternating blocks: 2411.15242).
"""

from typing import cast

import torch
from torch import Tensor, nn

from zamba_lab.blocks.attention import Attention
from zamba_lab.blocks.context import Context
from zamba_lab.blocks.linear import Linear
from zamba_lab.blocks.lora import Adapters, Lora
from zamba_lab.blocks.mlp import GatedMLP
from zamba_lab.blocks.norm import RMSNorm
from zamba_lab.cache import LayerCache
from zamba_lab.config import ZambaConfig
from zamba_lab.trace import OFF


class SharedBlock(nn.Module):
    """The weights that several depths share.

        u = norm_in( [x, x0] )          the residual stream first, the token embeddings second
        a = attention(u)                back to width d
        m = mlp( norm_mid(a) )

    There is no residual connection inside or around the block, as released: all that leaves it is m.
    """

    def __init__(self, config: ZambaConfig):
        super().__init__()
        self.norm_in = RMSNorm(config.d_attn, config.norm_eps)
        self.attention = Attention(config)
        self.norm_mid = RMSNorm(config.d_model, config.norm_eps)
        self.mlp = GatedMLP(config)
        self.block_input = stream_and_embedding if config.concat_embedding else stream_only

    def forward(self, x: Tensor, ctx: Context, cache: LayerCache, adapters: Adapters, trace=OFF) -> tuple[Tensor, LayerCache]:
        """x: (b, l, d) the residual stream. Returns m (b, l, d) and the invocation's keys and values so far."""
        u = self.norm_in(trace("input", self.block_input(x, ctx.x0)))
        a, kv = self.attention(u, ctx, cache, adapters, trace)
        m = self.mlp(trace("mlp_in", self.norm_mid(a)), adapters, trace)
        return trace("mlp_out", m), kv


class Invocation(nn.Module):
    """What one invocation owns: its adapters (those with a rank above 0) and its link matrix."""

    def __init__(self, config: ZambaConfig):
        super().__init__()
        c = config
        widths = {"q": c.attn_heads * c.head_dim, "k": c.kv_heads * c.head_dim, "v": c.kv_heads * c.head_dim}
        adapters = nn.ModuleDict()
        if c.lora_rank:
            adapters["mlp"] = Lora(c.d_model, c.lora_rank, 2 * c.d_mlp)
        if c.lora_rank_qkv:
            adapters.update({name: Lora(c.d_attn, c.lora_rank_qkv, width) for name, width in widths.items()})
        self.adapters = cast(Adapters, adapters)
        self.link = Linear(c.d_model, c.d_model, bias=False)

    def forward(self, x: Tensor, block: SharedBlock, ctx: Context, cache: LayerCache, trace=OFF) -> tuple[Tensor, LayerCache]:
        """Run the block for this depth. Returns t = link m, (b, l, d), and the keys and values so far."""
        m, kv = block(x, ctx, cache, self.adapters, trace)
        return trace("link_out", self.link(m)), kv


def stream_and_embedding(x: Tensor, x0: Tensor) -> Tensor:
    """[x, x0]: (b, l, d) each -> (b, l, 2d)."""
    return torch.cat([x, x0], dim=-1)


def stream_only(x: Tensor, x0: Tensor) -> Tensor:
    return x
