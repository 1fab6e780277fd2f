"""The Mamba-2 mixer of Zamba2 (Dao & Gu 2024): one scalar decay per head, B and C shared by the heads of a group."""

import torch
from einops import rearrange
from torch import Tensor, nn

from zamba_lab.blocks.context import Context
from zamba_lab.blocks.linear import Linear
from zamba_lab.blocks.mixer import Mixer, step_size
from zamba_lab.cache import LayerCache
from zamba_lab.config import ZambaConfig
from zamba_lab.ops.conv import conv_silu
from zamba_lab.ops.norm import gated_rms_norm
from zamba_lab.ops.ssd import ssd, ssd_recurrence
from zamba_lab.trace import OFF

# hard-wired in the released model, whatever its other norms use
GATED_NORM_EPS = 1e-5


class Mamba2(Mixer):
    """out_proj( norm( (SSM(x, dt, A, B, C) + D x) * silu(z) ) ), x, B, C convolved, all linear in the input."""

    parallel, recurrence = staticmethod(ssd), staticmethod(ssd_recurrence)

    def __init__(self, config: ZambaConfig):
        super().__init__()
        c = self.config = config
        self.widths = (c.d_inner, c.conv_dim, c.ssm_heads)  # z | x, B, C | dt
        self.in_proj = Linear(c.d_model, sum(self.widths), bias=c.proj_bias)
        self.conv_weight = nn.Parameter(torch.empty(c.conv_dim, c.d_conv)) if c.d_conv else None
        self.conv_bias = nn.Parameter(torch.empty(c.conv_dim)) if c.d_conv and c.conv_bias else None
        self.dt_bias = nn.Parameter(torch.empty(c.ssm_heads))
        self.A_log = nn.Parameter(torch.empty(c.ssm_heads))
        self.D = nn.Parameter(torch.empty(c.ssm_heads))
        self.norm_weight = nn.Parameter(torch.ones(c.d_inner))
        self.out_proj = Linear(c.d_inner, c.d_model, bias=c.proj_bias)

    def forward(self, u: Tensor, ctx: Context, cache: LayerCache, trace=OFF) -> tuple[Tensor, Tensor, Tensor]:
        """u: (b, l, d), normed. Returns the output (b, l, d), the conv state (b, w-1, e + 2gn) and the SSM state (b, h, p, n)."""
        c = self.config
        z, xBC, dt = trace("projected", self.in_proj(trace("input", u))).split(self.widths, dim=-1)
        conv, ssm = self.carried(cache, xBC)
        xBC, conv = conv_silu(xBC, self.conv_kernel, self.conv_bias, conv, ctx.mask)
        x, B, C = xBC.split((c.d_inner, c.n_groups * c.d_state, c.n_groups * c.d_state), dim=-1)
        z, x = trace("z", z), trace("x", rearrange(x, "b l (h p) -> b l h p", p=c.headdim))
        B, C = (trace(name, rearrange(part, "b l (g n) -> b l g n", g=c.n_groups)) for name, part in (("B", B), ("C", C)))
        dt = trace("dt", step_size(dt, self.dt_bias, c.dt_min, ctx.mask))  # (b, l, h)

        y, ssm = self.ssm(x, dt, B, C, ssm, trace)
        y = rearrange(trace("y", y), "b l h p -> b l (h p)")
        y = gated_rms_norm(y, z, self.norm_weight, GATED_NORM_EPS, c.gated_norm_groups)
        return trace("out", self.out_proj(y)), conv, ssm
