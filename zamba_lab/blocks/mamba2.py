"""The Mamba-2 mixer of Zamba2 (Dao & Gu 2024): one scalar decay per head, B and C shared by the heads of a group."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor, nn

from zamba_lab.blocks.context import Context
from zamba_lab.blocks.linear import Linear
from zamba_lab.cache import LayerCache
from zamba_lab.config import ZambaConfig
from zamba_lab.ops import kernels
from zamba_lab.ops.conv import conv_silu
from zamba_lab.ops.kernels.step import mamba2_step
from zamba_lab.ops.norm import gated_rms_norm
from zamba_lab.ops.ssd import skip, ssd, ssd_recurrence, ssd_step
from zamba_lab.trace import OFF

# hard-wired in the released model, whatever its other norms use
GATED_NORM_EPS = 1e-5


class Mamba2(nn.Module):
    """out_proj( norm( (SSM(x, dt, A, B, C) + D x) * silu(z) ) ), x, B, C convolved, all linear in the input."""

    def __init__(self, config: ZambaConfig):
        super().__init__()
        c = self.config = config
        self.widths = (c.d_inner, c.conv_dim, c.ssm_heads)                      # z | x, B, C | dt
        self.in_proj = Linear(c.d_model, sum(self.widths), bias=c.proj_bias)
        self.conv_weight = nn.Parameter(torch.empty(c.conv_dim, c.d_conv))
        self.conv_bias = nn.Parameter(torch.empty(c.conv_dim)) if c.conv_bias else None
        self.dt_bias = nn.Parameter(torch.empty(c.ssm_heads))
        self.A_log = nn.Parameter(torch.empty(c.ssm_heads))
        self.D = nn.Parameter(torch.empty(c.ssm_heads))
        self.norm_weight = nn.Parameter(torch.ones(c.d_inner))
        self.out_proj = Linear(c.d_inner, c.d_model, bias=c.proj_bias)

    def forward(self, u: Tensor, ctx: Context, cache: LayerCache, trace=OFF) -> tuple[Tensor, Tensor, Tensor]:
        """u: (b, l, d), normed. Returns the output (b, l, d), the conv state and the SSM state."""
        zxBCdt = self.in_proj(trace("input", u))
        if ctx.step:
            inner = partial(self.fused, mamba2_step)
        elif self.fusible(zxBCdt, ctx, trace):
            inner = partial(self.fused, kernels.mamba2)
        else:
            inner = partial(self.spelt_out, ctx=ctx, trace=trace)
        y, conv, ssm = inner(zxBCdt, cache=cache)
        return trace("out", self.out_proj(y)), conv, ssm

    def spelt_out(self, zxBCdt: Tensor, ctx: Context, cache: LayerCache, trace=OFF) -> tuple[Tensor, Tensor, Tensor]:
        """From the input projection to the output projection, operation by operation. (b, l, e + ...) -> (b, l, e)."""
        c = self.config
        z, xBC, dt = trace("projected", zxBCdt).split(self.widths, dim=-1)
        xBC, conv = conv_silu(xBC, self.conv_weight, self.conv_bias, cache.conv, ctx.mask)
        x, B, C = xBC.split((c.d_inner, c.n_groups * c.d_state, c.n_groups * c.d_state), dim=-1)
        z, x = trace("z", z), trace("x", rearrange(x, "b l (h p) -> b l h p", p=c.headdim))
        B, C = (trace(name, rearrange(part, "b l (g n) -> b l g n", g=c.n_groups)) for name, part in (("B", B), ("C", C)))
        dt = trace("dt", step_size(dt, self.dt_bias, c.dt_min, ctx.mask))       # (b, l, h)

        y, ssm = self.scan(x, dt, -torch.exp(self.A_log.to(dt.dtype)), B, C, cache.ssm, trace)
        y = rearrange(trace("y", y), "b l h p -> b l (h p)")
        return gated_rms_norm(y, z, self.norm_weight, GATED_NORM_EPS, c.n_groups), conv, ssm

    def fused(self, native: Callable, zxBCdt: Tensor, cache: LayerCache) -> tuple[Tensor, Tensor, Tensor]:
        """`spelt_out` in one native call, for one token or for many, where nobody looks in and there is no padding."""
        c = self.config
        return native(zxBCdt, self.conv_weight, self.conv_bias, self.dt_bias, self.A_log, self.D, self.norm_weight,
                      cache.conv, cache.ssm, c.n_groups, c.d_state, GATED_NORM_EPS, c.dt_min)

    def fusible(self, zxBCdt: Tensor, ctx: Context, trace) -> bool:
        return (trace is OFF and ctx.mask is None and self.config.d_conv <= kernels.MOST_TAPS
                and kernels.serves(zxBCdt, self.conv_weight, self.norm_weight))

    def scan(self, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None, trace=OFF
             ) -> tuple[Tensor, Tensor]:
        """SSM(x, ...) + D x, in the form that suits: in steps if states are looked at, one step for a token, else at once."""
        if trace.wants("state"):
            y, states = ssd_recurrence(x, dt, A, B, C, state, edit=trace.editor("state"))
            trace.record("state", states)
            return skip(y, x, self.D), states[:, -1]
        if x.shape[1] == 1:
            y, state = ssd_step(x[:, 0], dt[:, 0], A, B[:, 0], C[:, 0], state)
            return skip(y[:, None], x, self.D), state
        return ssd(x, dt, A, B, C, state, self.config.chunk_size, self.D)


def step_size(raw: Tensor, bias: Tensor, least: float, mask: Tensor | None) -> Tensor:
    """softplus(raw + bias), float32 or wider, clamped from below if asked, and 0 at padding: time stands still there.

    raw: (b, l, ...). The released models were trained without a clamp; `least` reproduces readers that have one.
    """
    wide = torch.promote_types(raw.dtype, torch.float32)
    dt = F.softplus(raw.to(wide) + bias.to(wide))
    if least > 0:
        dt = dt.clamp(min=least)
    return dt if mask is None else einsum(dt, mask.to(wide), "b l ..., b l -> b l ...")
