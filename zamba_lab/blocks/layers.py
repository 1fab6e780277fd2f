"""One depth of the model: a Mamba layer, a hybrid layer, or a layer of the transformer arm. One signature for all:

layer(x, block, ctx, cache, trace)     x: (b, l, d), the residual stream; block: the shared block of this depth, or None
                                       returns the stream after this depth, and what the depth carries on
"""

from dataclasses import replace

from torch import Tensor, nn

from zamba_lab.blocks.attention import Attention
from zamba_lab.blocks.context import Context
from zamba_lab.blocks.mamba1 import Mamba1
from zamba_lab.blocks.mamba2 import Mamba2
from zamba_lab.blocks.mlp import GatedMLP
from zamba_lab.blocks.norm import RMSNorm
from zamba_lab.blocks.shared import Invocation, SharedBlock
from zamba_lab.cache import LayerCache
from zamba_lab.config import ZambaConfig
from zamba_lab.trace import OFF

MIXERS = {"mamba1": Mamba1, "mamba2": Mamba2}


class Layer(nn.Module):
    """One depth of the model, of one of the classes below. They say which of these parts it has."""

    norm: RMSNorm
    mamba: Mamba1 | Mamba2
    invocation: Invocation


class MambaLayer(Layer):
    """x + mixer( norm(x) )"""

    def __init__(self, config: ZambaConfig):
        super().__init__()
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.mamba = MIXERS[config.mixer](config)

    def forward(self, x: Tensor, block: None, ctx: Context, cache: LayerCache, trace=OFF) -> tuple[Tensor, LayerCache]:
        y, conv, ssm = self.mamba(self.norm(x), ctx, cache, trace.at("mamba"))
        return x + y, LayerCache(conv, ssm)


class HybridLayer(MambaLayer):
    """x + mixer( norm(x + t) ), t = link( block([x, x0]) )

    t enters the mixer's *input* only, never the stream: a shared block has no direct path to the logits.
    """

    def __init__(self, config: ZambaConfig, k: int):
        super().__init__(config)
        self.invocation = Invocation(config)
        self.alias = f"invocation.{k}"  # the second name of this depth's trace points

    # pyrefly: ignore[bad-override]  a layer without an invocation has no block: callers give each kind its own
    def forward(self, x: Tensor, block: SharedBlock, ctx: Context, cache: LayerCache, trace=OFF) -> tuple[Tensor, LayerCache]:
        t, kv = self.invocation(x, block, ctx, cache, trace.at("shared", alias=self.alias))
        y, conv, ssm = self.mamba(self.norm(x + t), ctx, cache, trace.at("mamba"))
        return x + y, replace(kv, conv=conv, ssm=ssm)


class StreamHybridLayer(HybridLayer):
    """x = x + t, then x + mixer( norm(x) ): the usual residual connection in the place of the released one."""

    def forward(self, x: Tensor, block: SharedBlock, ctx: Context, cache: LayerCache, trace=OFF) -> tuple[Tensor, LayerCache]:
        t, kv = self.invocation(x, block, ctx, cache, trace.at("shared", alias=self.alias))
        x = x + t
        y, conv, ssm = self.mamba(self.norm(x), ctx, cache, trace.at("mamba"))
        return x + y, replace(kv, conv=conv, ssm=ssm)


HYBRIDS = {"mixer": HybridLayer, "stream": StreamHybridLayer}


class TransformerLayer(Layer):
    """x + attention( norm(x) ), then x + mlp( norm(x) ): the standard pre-norm layer, nothing shared."""

    def __init__(self, config: ZambaConfig):
        super().__init__()
        self.norm_in = RMSNorm(config.d_model, config.norm_eps)
        self.attention = Attention(config)
        self.norm_mid = RMSNorm(config.d_model, config.norm_eps)
        self.mlp = GatedMLP(config)

    def forward(self, x: Tensor, block: None, ctx: Context, cache: LayerCache, trace=OFF) -> tuple[Tensor, LayerCache]:
        no_adapters = nn.ModuleDict()
        a, kv = self.attention(self.norm_in(x), ctx, cache, no_adapters, trace.at("attention"))
        x = x + a
        m = self.mlp(trace("mlp_in", self.norm_mid(x)), no_adapters)
        return x + trace("mlp_out", m), kv
