"""One depth of the model: a Mamba layer, a hybrid layer, or a layer of the transformer arm. One signature for all."""

from torch import Tensor, nn

from zamba_lab.blocks.attention import Attention
from zamba_lab.blocks.context import Context
from zamba_lab.blocks.linear import Int8Linear, Linear
from zamba_lab.blocks.mamba1 import Mamba1
from zamba_lab.blocks.mamba2 import Mamba2
from zamba_lab.blocks.mixer import Mixer
from zamba_lab.blocks.mlp import GatedMLP
from zamba_lab.blocks.norm import RMSNorm
from zamba_lab.blocks.shared import Invocation, SharedBlock
from zamba_lab.blocks.watched import watched
from zamba_lab.cache import LayerCache
from zamba_lab.config import ZambaConfig
from zamba_lab.ops.join import plus
from zamba_lab.trace import OFF

MIXERS = {"mamba1": Mamba1, "mamba2": Mamba2}


class MambaLayer(nn.Module):
    """x + mixer( norm(x) )"""

    def __init__(self, config: ZambaConfig):
        super().__init__()
        self.norm = RMSNorm(config.d_model, config.norm_eps)
        self.mamba = MIXERS[config.mixer](config)

    def forward(self, x: Tensor, block: None, ctx: Context, cache: LayerCache, trace=OFF) -> tuple[Tensor, LayerCache]:
        """x: (b, l, d). Returns the stream after this depth and what the depth carries on."""
        x, conv, ssm = self.mixed(x, self.norm(x), ctx, cache, trace)
        return x, LayerCache(conv, ssm)

    def mixed(self, x: Tensor, u: Tensor, ctx: Context, cache: LayerCache, trace) -> tuple[Tensor, Tensor, Tensor]:
        """x + mixer(u), in the sum of the output projection where nobody sees what the mixer itself gives, and its states."""
        known = type(self.mamba).forward is Mixer.forward and type(self.mamba.out_proj).forward in (Linear.forward, Int8Linear.forward)
        if trace is OFF and known and not watched(self.mamba, self.mamba.out_proj):
            return self.mamba(u, ctx, cache, add=x)
        y, conv, ssm = self.mamba(u, ctx, cache, trace.at("mamba"))
        return plus(x, y), conv, ssm


class HybridLayer(MambaLayer):
    """x + mixer( norm(x + t) ), t = link( block([x, x0]) )

    t enters the mixer's *input* only, never the stream: a shared block has no direct path to the logits.
    """

    def __init__(self, config: ZambaConfig, k: int):
        super().__init__(config)
        self.invocation = Invocation(config)
        self.alias = f"invocation.{k}"  # the second name of this depth's trace points

    def forward(self, x: Tensor, block: SharedBlock, ctx: Context, cache: LayerCache, trace=OFF) -> tuple[Tensor, LayerCache]:
        t, kv = self.invocation(x, block, ctx, cache, trace.at("shared", alias=self.alias))
        x, conv, ssm = self.mixed(x, self.norm(plus(x, t)), ctx, cache, trace)
        return x, LayerCache(conv, ssm, kv.k, kv.v, kv.room)


class StreamHybridLayer(HybridLayer):
    """x = x + t, then x + mixer( norm(x) ): the usual residual connection in the place of the released one."""

    def forward(self, x: Tensor, block: SharedBlock, ctx: Context, cache: LayerCache, trace=OFF) -> tuple[Tensor, LayerCache]:
        t, kv = self.invocation(x, block, ctx, cache, trace.at("shared", alias=self.alias))
        x = plus(x, t)
        x, conv, ssm = self.mixed(x, self.norm(x), ctx, cache, trace)
        return x, LayerCache(conv, ssm, kv.k, kv.v, kv.room)


HYBRIDS = {"mixer": HybridLayer, "stream": StreamHybridLayer}


class TransformerLayer(nn.Module):
    """x + attention( norm(x) ), then x + mlp( norm(x) ): the standard pre-norm layer, nothing shared."""

    def __init__(self, config: ZambaConfig):
        super().__init__()
        self.norm_in = RMSNorm(config.d_model, config.norm_eps)
        self.attention = Attention(config)
        self.norm_mid = RMSNorm(config.d_model, config.norm_eps)
        self.mlp = GatedMLP(config)

    def forward(self, x: Tensor, block: None, ctx: Context, cache: LayerCache, trace=OFF) -> tuple[Tensor, LayerCache]:
        none = nn.ModuleDict()
        a, kv = self.attention(self.norm_in(x), ctx, cache, none, trace.at("attention"))
        x = plus(x, a)
        m = self.mlp(trace("mlp_in", self.norm_mid(x)), none)
        return plus(x, trace("mlp_out", m)), kv
