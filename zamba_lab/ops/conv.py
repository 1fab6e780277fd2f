"""The causal depthwise convolution in front of the SSM: each channel sees its own last few inputs."""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from zamba_lab import native


def causal_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None = None, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Convolve along positions, looking back only.

        y_t = bias + sum_j weight_j x_{t - (w-1) + j}          j = 0 .. w-1, per channel

    Padding is skipped, not convolved: a real token sees the real tokens before it, wherever padding stands, and the
    state holds the last real inputs. So left, right and interior padding give the unpadded result.

    Args:
        x: (b, l, e) inputs. weight: (e, w). bias: (e,) or None.
        state: (b, w-1, e) the inputs just before x; zeros if None.
        mask: (b, l) bool, False at padding; None if there is none.

    Returns: y (b, l, e), undefined at padding; state (b, w-1, e) for what comes next.
    """
    back = weight.shape[-1] - 1
    if state is None:
        state = x.new_zeros(x.shape[0], back, x.shape[2])
    elif state.shape != (x.shape[0], back, x.shape[2]):
        raise ValueError(f"the conv state must have shape {(x.shape[0], back, x.shape[2])} (b, w-1, e): got {tuple(state.shape)}")
    order = None if mask is None else torch.argsort(mask.logical_not().to(torch.uint8), dim=1, stable=True)  # real tokens first
    window = torch.cat([state, x if order is None else _take(x, order)], dim=1)  # (b, w-1+l, e)
    y = F.conv1d(rearrange(window, "b i e -> b e i"), rearrange(weight, "e w -> e 1 w"), bias, groups=x.shape[2])
    y = rearrange(y, "b e l -> b l e").contiguous()  # element-wise gradients are slow where layouts mix
    if mask is None or order is None:
        # narrow, not [-back:], which is everything when back is 0; clone, or the state would keep the window alive
        return y, window.narrow(1, x.shape[1], back).clone()
    last = mask.sum(1, keepdim=True) + torch.arange(back, device=x.device)  # (b, w-1)
    return _take(y, torch.argsort(order, dim=1)), _take(window, last)


def _take(x: Tensor, index: Tensor) -> Tensor:
    """Row by row, the positions of x (b, l, e) that index (b, m) names."""
    return x.gather(1, repeat(index, "b m -> b m e", e=x.shape[-1]))


def conv_silu(
    x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None = None, mask: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """silu(causal_conv(...)), natively where a native form serves: then rounded once. Arguments and results as there."""
    weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
    if mask is None and (form := native.find("conv_silu", x, weight, bias, state)):
        return form(x, weight, bias, state)
    y, state = causal_conv(x, weight, bias, state, mask)
    return F.silu(y), state
