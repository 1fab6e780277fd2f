"""The Mamba-1 mixer (Gu & Dao 2023), multi-head as in Zamba1: each head has its own B, C and step-size projection."""

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor, nn

from zamba_lab.blocks.context import Context
from zamba_lab.blocks.linear import Linear
from zamba_lab.blocks.mixer import Mixer, step_size
from zamba_lab.cache import LayerCache
from zamba_lab.config import ZambaConfig
from zamba_lab.ops.conv import conv_silu
from zamba_lab.ops.scan import scan_recurrence, selective_scan
from zamba_lab.trace import OFF


class Mamba1(Mixer):
    """out_proj( (SSM(x, dt, A, B, C) + D x) * silu(z) ), x convolved; dt, B, C linear in x, head by head.

    The original Mamba is the case of one head. There is no norm before out_proj.
    """

    parallel, recurrence = staticmethod(selective_scan), staticmethod(scan_recurrence)

    def __init__(self, config: ZambaConfig):
        super().__init__()
        c = self.config = config
        h, p, n, rank = c.ssm_heads, c.headdim, c.d_state, c.dt_width
        self.in_proj = Linear(c.d_model, 2 * c.d_inner, bias=c.proj_bias)  # x | z
        self.conv_weight = nn.Parameter(torch.empty(c.d_inner, c.d_conv)) if c.d_conv else None
        self.conv_bias = nn.Parameter(torch.empty(c.d_inner)) if c.d_conv and c.conv_bias else None
        self.x_proj = nn.Parameter(torch.empty(h, rank + 2 * n, p))  # dt's low rank | B | C
        self.dt_proj = nn.Parameter(torch.empty(h, p, rank))
        self.dt_bias = nn.Parameter(torch.empty(h, p))
        self.A_log = nn.Parameter(torch.empty(h, p, n))
        self.D = nn.Parameter(torch.empty(h, p))
        self.out_proj = Linear(c.d_inner, c.d_model, bias=c.proj_bias)

    def forward(self, u: Tensor, ctx: Context, cache: LayerCache, trace=OFF) -> tuple[Tensor, Tensor, Tensor]:
        """u: (b, l, d), normed. Returns the output (b, l, d), the conv state (b, w-1, e) and the SSM state (b, h, p, n)."""
        c = self.config
        x, z = trace("projected", self.in_proj(trace("input", u))).chunk(2, dim=-1)
        conv, ssm = self.carried(cache, x)
        x, conv = conv_silu(x, self.conv_kernel, self.conv_bias, conv, ctx.mask)
        z, x = trace("z", z), trace("x", rearrange(x, "b l (h p) -> b l h p", p=c.headdim))
        low, B, C = einsum(x, self.x_proj, "b l h p, h i p -> b l h i").split((c.dt_width, c.d_state, c.d_state), dim=-1)
        B, C = trace("B", B), trace("C", C)  # (b, l, h, n)
        raw = einsum(low, self.dt_proj, "b l h r, h p r -> b l h p")
        dt = trace("dt", step_size(raw, self.dt_bias, c.dt_min, ctx.mask))  # (b, l, h, p)

        y, ssm = self.ssm(x, dt, B, C, ssm, trace)
        y = rearrange(trace("y", y), "b l h p -> b l (h p)") * F.silu(z)
        return trace("out", self.out_proj(y)), conv, ssm
