"""The Mamba-2 mixer of Zamba2 (Dao & Gu 2024): one scalar decay per head, B and C shared by the heads of a group."""

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor, nn

from zamba_lab.blocks.context import Context
from zamba_lab.blocks.linear import Linear
from zamba_lab.blocks.mixer import Mixer, step_size, taps
from zamba_lab.cache import LayerCache
from zamba_lab.config import ZambaConfig
from zamba_lab import native
from zamba_lab.ops.conv import conv_silu
from zamba_lab.native.step import mamba2_step
from zamba_lab.ops.norm import gated_rms_norm
from zamba_lab.ops.ssd import ssd, ssd_recurrence, ssd_step
from zamba_lab.trace import OFF

# hard-wired in the released model, whatever its other norms use
GATED_NORM_EPS = 1e-5


class Mamba2(Mixer):
    """out_proj( norm( (SSM(x, dt, A, B, C) + D x) * silu(z) ) ), x, B, C convolved, all linear in the input."""

    forms = ssd_recurrence, ssd_step, ssd

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

    def spelt_out(self, zxBCdt: Tensor, ctx: Context, cache: LayerCache, trace=OFF) -> tuple[Tensor, Tensor, Tensor]:
        """From the input projection to the output projection, operation by operation. (b, l, e + ...) -> (b, l, e)."""
        c = self.config
        z, xBC, dt = trace("projected", zxBCdt).split(self.widths, dim=-1)
        xBC, conv = conv_silu(xBC, taps(self), self.conv_bias, cache.conv, ctx.mask)
        x, B, C = xBC.split((c.d_inner, c.n_groups * c.d_state, c.n_groups * c.d_state), dim=-1)
        z, x = trace("z", z), trace("x", rearrange(x, "b l (h p) -> b l h p", p=c.headdim))
        B, C = (trace(name, rearrange(part, "b l (g n) -> b l g n", g=c.n_groups)) for name, part in (("B", B), ("C", C)))
        dt = trace("dt", step_size(dt, self.dt_bias, c.dt_min, ctx.mask))  # (b, l, h)

        y, ssm = self.scan(x, dt, -torch.exp(self.A_log.to(dt.dtype)), B, C, cache.ssm, trace)
        y = rearrange(trace("y", y), "b l h p -> b l (h p)")
        return gated_rms_norm(y, z, self.norm_weight, GATED_NORM_EPS, c.gated_norm_groups), conv, ssm

    def fused(self, native: Callable, zxBCdt: Tensor, cache: LayerCache) -> tuple[Tensor, Tensor, Tensor]:
        """`spelt_out` in one native call, for one token or for many, where nobody looks in and there is no padding."""
        c = self.config
        return native(
            zxBCdt,
            taps(self),
            self.conv_bias,
            self.dt_bias,
            self.A_log,
            self.D,
            self.norm_weight,
            cache.conv,
            cache.ssm,
            c.n_groups,
            c.d_state,
            GATED_NORM_EPS,
            c.dt_min,
        )

    def native(self, zxBCdt: Tensor, ctx: Context, trace) -> Callable | None:
        """The native form norms within the groups that share B and C, and within no others."""
        c = self.config
        if c.norm_groups is not None:
            return None
        if ctx.step:
            return mamba2_step
        whole = trace is OFF and ctx.mask is None and c.d_conv <= native.MOST_TAPS
        return native.mamba2 if whole and native.serves(zxBCdt, taps(self), self.norm_weight) else None
