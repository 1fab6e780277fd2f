"""What the two mixers have in common: the way in and out, and the choice among the forms of one computation."""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from einops import einsum
from torch import Tensor, nn

from zamba_lab.blocks.context import Context
from zamba_lab.cache import LayerCache
from zamba_lab.native.call import carried
from zamba_lab.ops.ssd import skip
from zamba_lab.trace import OFF


class Mixer(nn.Module):
    """out_proj(SSM(in_proj(u))). `Mamba1` and `Mamba2` list the parameters and say what stands between the projections:

    spelt_out   operation by operation, each number with its trace point
    native      which function of `native` computes the same in one call here, if any;  fused  calls it
    forms       the SSM in steps with all states, as one step, and at once: functions of `ops`
    """

    forms: tuple[Callable, Callable, Callable]

    def forward(self, u: Tensor, ctx: Context, cache: LayerCache, trace=OFF, add: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """u: (b, l, d), normed. Returns the output (b, l, d), plus `add` if it is given, the conv state and the SSM state."""
        projected = self.in_proj(trace("input", u))
        cache = self.fitted(cache, projected)
        if native := self.native(projected, ctx, trace):
            y, conv, ssm = self.fused(native, projected, cache)
        else:
            y, conv, ssm = self.spelt_out(projected, ctx, cache, trace)
        return trace("out", self.out_proj(y) if add is None else self.out_proj(y, add)), conv, ssm

    def fitted(self, cache: LayerCache, like: Tensor) -> LayerCache:
        """The cache with conv and ssm as this mixer carries them: of another type they are converted, for the model may have
        been since. Raises ValueError if their shape is another: the cache is of another model or batch then."""
        if cache.conv is None and cache.ssm is None:
            return cache
        c, b, wide = self.config, len(like), torch.promote_types(like.dtype, torch.float32)
        conv = carried("conv state", cache.conv, (b, c.conv_state, c.conv_dim), like.dtype)
        ssm = carried("SSM state", cache.ssm, (b, c.ssm_heads, c.headdim, c.d_state), wide)
        return cache if conv is cache.conv and ssm is cache.ssm else replace(cache, conv=conv, ssm=ssm)

    def scan(self, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None, trace=OFF) -> tuple[Tensor, Tensor]:
        """SSM(x, ...) + D x, in the form that suits: in steps if states are looked at, one step for a token, else at once."""
        recurrence, step, at_once = self.forms
        if trace.wants("state"):
            y, states = recurrence(x, dt, A, B, C, state, edit=trace.editor("state"))
            trace.record("state", states)
            return skip(y, x, self.D), states[:, -1]
        if x.shape[1] == 1:
            y, state = step(x[:, 0], dt[:, 0], A, B[:, 0], C[:, 0], state)
            return skip(y[:, None], x, self.D), state
        return at_once(x, dt, A, B, C, state, self.config.chunk_size, self.D)


def taps(mixer: nn.Module) -> Tensor:
    """The weights of a mixer's convolution, (channels, w); where there is none, one tap of 1, which changes nothing."""
    c = mixer.config
    return mixer.conv_weight if c.d_conv else mixer.D.new_ones(c.conv_dim, 1)


def step_size(raw: Tensor, bias: Tensor, least: float, mask: Tensor | None) -> Tensor:
    """softplus(raw + bias), float32 or wider, clamped from below if asked, and 0 at padding: time stands still there.

    raw: (b, l, ...). The released models were trained without a clamp; `least` reproduces readers that have one.
    """
    wide = torch.promote_types(raw.dtype, torch.float32)
    dt = F.softplus(raw.to(wide) + bias.to(wide))
    if least > 0:
        dt = dt.clamp(min=least)
    return dt if mask is None else einsum(dt, mask.to(wide), "b l ..., b l -> b l ...")
