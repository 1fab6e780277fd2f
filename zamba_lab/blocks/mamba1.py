"""The Mamba-1 mixer (Gu & Dao 2023), multi-head as in Zamba1: each head has its own B, C and step-size projection."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor, nn

from zamba_lab.blocks.context import Context
from zamba_lab.blocks.linear import Linear
from zamba_lab.blocks.mixer import Mixer, step_size, taps
from zamba_lab.cache import LayerCache
from zamba_lab.config import ZambaConfig
from zamba_lab import native
from zamba_lab.ops.conv import conv_silu
from zamba_lab.native.step import mamba1_step
from zamba_lab.ops.scan import scan_recurrence, scan_step, selective_scan
from zamba_lab.trace import OFF


class Mamba1(Mixer):
    """out_proj( (SSM(x, dt, A, B, C) + D x) * silu(z) ), x convolved; dt, B, C linear in x, head by head.

    The original Mamba is the case of one head. There is no norm before out_proj.
    """

    forms = scan_recurrence, scan_step, selective_scan

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

    def spelt_out(self, xz: Tensor, ctx: Context, cache: LayerCache, trace=OFF) -> tuple[Tensor, Tensor, Tensor]:
        """From the input projection to the output projection, operation by operation. (b, l, 2e) -> (b, l, e)."""
        c = self.config
        x, z = trace("projected", xz).chunk(2, dim=-1)
        x, conv = conv_silu(x, taps(self), self.conv_bias, cache.conv, ctx.mask)
        z, x = trace("z", z), trace("x", rearrange(x, "b l (h p) -> b l h p", p=c.headdim))
        low, B, C = einsum(x, self.x_proj, "b l h p, h i p -> b l h i").split((c.dt_width, c.d_state, c.d_state), dim=-1)
        B, C = trace("B", B), trace("C", C)  # (b, l, h, n)
        raw = einsum(low, self.dt_proj, "b l h r, h p r -> b l h p")
        dt = trace("dt", step_size(raw, self.dt_bias, c.dt_min, ctx.mask))  # (b, l, h, p)

        y, ssm = self.scan(x, dt, -torch.exp(self.A_log.to(dt.dtype)), B, C, cache.ssm, trace)
        return rearrange(trace("y", y), "b l h p -> b l (h p)") * F.silu(z), conv, ssm

    def fused(self, native: Callable, xz: Tensor, cache: LayerCache) -> tuple[Tensor, Tensor, Tensor]:
        """`spelt_out` in one native call, for one token or for many, where nobody looks in and there is no padding."""
        return native(
            xz,
            taps(self),
            self.conv_bias,
            self.x_proj,
            self.dt_proj,
            self.dt_bias,
            self.A_log,
            self.D,
            cache.conv,
            cache.ssm,
            self.config.dt_min,
        )

    def native(self, xz: Tensor, ctx: Context, trace) -> Callable | None:
        if ctx.step:
            return mamba1_step
        whole = trace is OFF and ctx.mask is None and xz.shape[1] > 1 and self.config.d_conv <= native.MOST_TAPS
        return native.mamba1 if whole and native.serves(xz, taps(self), self.x_proj, self.dt_proj) else None
