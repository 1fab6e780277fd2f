"""What the two Mamba mixers have in common: the state they carry, and the SSM, whose states a trace may see and change."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import einsum
from torch import Tensor, nn

from zamba_lab.blocks.linear import Linear
from zamba_lab.cache import LayerCache
from zamba_lab.config import ZambaConfig
from zamba_lab.ops.ssd import skip
from zamba_lab.trace import OFF


class Mixer(nn.Module):
    """out_proj( SSM( conv( in_proj(u) ) ) ): `Mamba1` and `Mamba2`, which list the parameters and hold the forward.

    parallel, recurrence: the two forms of the mixer's SSM, functions of `ops`: over all tokens, and token by token with every state.
    """

    config: ZambaConfig
    in_proj: Linear
    conv_weight: nn.Parameter | None  # None without a convolution
    conv_bias: nn.Parameter | None
    x_proj: nn.Parameter  # Mamba-1 only, as dt_proj
    dt_proj: nn.Parameter
    dt_bias: nn.Parameter
    A_log: nn.Parameter
    D: nn.Parameter
    norm_weight: nn.Parameter  # Mamba-2 only
    out_proj: Linear
    parallel: Callable
    recurrence: Callable

    @property
    def conv_kernel(self) -> Tensor:
        """The convolution's weights, (channels, w); without a convolution one weight of 1, which changes nothing."""
        return self.D.new_ones(self.config.conv_dim, 1) if self.conv_weight is None else self.conv_weight

    def carried(self, cache: LayerCache, like: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """The conv and SSM state to go on from, None at a start, in the types this mixer computes with: the model may have been
        converted since. like: (b, l, ...). Raises ValueError if a shape is another: the cache is of another model or batch then.
        """
        c, b, wide = self.config, len(like), torch.promote_types(like.dtype, torch.float32)
        shapes = {"conv state": (b, c.conv_state, c.conv_dim), "SSM state": (b, c.ssm_heads, c.headdim, c.d_state)}
        for (name, shape), state in zip(shapes.items(), (cache.conv, cache.ssm)):
            if state is not None and state.shape != shape:
                got = tuple(state.shape)
                raise ValueError(f"the {name} to go on from must have shape {shape}, as this layer and batch need it: got {got}")
        return None if cache.conv is None else cache.conv.to(like.dtype), None if cache.ssm is None else cache.ssm.to(wide)

    def ssm(self, x: Tensor, dt: Tensor, B: Tensor, C: Tensor, state: Tensor | None, trace=OFF) -> tuple[Tensor, Tensor]:
        """y = SSM(x, dt, A, B, C) + D x and the last state; token by token if the trace keeps or edits the states."""
        A = -torch.exp(self.A_log.to(dt.dtype))
        if not trace.wants("state"):
            return self.parallel(x, dt, A, B, C, state, self.config.chunk_size, self.D)
        edit = trace.editor("state")
        y, states = self.recurrence(x, dt, A, B, C, state, edit=edit)
        kept = trace.record("state", states)
        if kept is not states and kept.requires_grad:
            # For gradients what follows must follow from the kept states: they are carried on as an edit, of 0, of the others.
            change = kept - states
            y, states = self.recurrence(x, dt, A, B, C, state, edit=lambda states: (edit(states) if edit else states) + change)
        return skip(y, x, self.D), states[:, -1]


def step_size(raw: Tensor, bias: Tensor, least: float, mask: Tensor | None) -> Tensor:
    """softplus(raw + bias), float32 or wider, clamped from below if asked, and 0 at padding: time stands still there.

    raw: (b, l, ...). The released models were trained without a clamp; `least` reproduces readers that have one.
    """
    wide = torch.promote_types(raw.dtype, torch.float32)
    dt = F.softplus(raw.to(wide) + bias.to(wide))
    if least > 0:
        dt = dt.clamp(min=least)
    return dt if mask is None else einsum(dt, mask.to(wide), "b l ..., b l -> b l ...")
