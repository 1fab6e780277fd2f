"""All of a Mamba-2 mixer between its two projections as one operator: convolution, step size, scan, gate and norm.

What it computes is what `blocks/mamba2.py` spells out, by the same native kernels. What it saves is memory and passes over
it: for the gradient only its input is kept, the rest is computed again, and the gradient is written where it belongs in one
tensor of the input's shape.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from zamba_lab.native import conv, direct, norm
from zamba_lab.native.call import COMPUTED
from zamba_lab.native.memory import empty
from zamba_lab.native.ssd import backward as ssd_backward
from zamba_lab.native.ssd import forward as ssd_forward


def _parts(t: Tensor, e: int, gn: int) -> tuple[Tensor, Tensor, Tensor]:
    """z | x, B, C | dt, as views."""
    return t[..., :e], t[..., e : 2 * e + 2 * gn], t[..., 2 * e + 2 * gn :]


def _ssd_inputs(
    xBC: Tensor, raw: Tensor, dt_bias: Tensor, A_log: Tensor, e: int, groups: int, n: int, dt_min: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x, dt, A, B, C of the scan; dt and A in the computing type."""
    wide, h = COMPUTED[xBC.dtype], A_log.shape[0]
    x, B, C = xBC.split((e, groups * n, groups * n), dim=-1)
    dt = F.softplus(raw.to(wide) + dt_bias.to(wide))
    dt = dt.clamp(min=dt_min) if dt_min > 0 else dt
    return (x.unflatten(-1, (h, e // h)), dt, -torch.exp(A_log.to(wide)), B.unflatten(-1, (groups, n)), C.unflatten(-1, (groups, n)))


def mamba2(*arguments) -> tuple[Tensor, Tensor, Tensor]:
    """The mixer between its projections; arguments and results as `_plain` has them."""
    return (_plain if direct.bare(*arguments) else _operator)(*arguments)


def _plain(
    zxBCdt: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor | None,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    norm_weight: Tensor,
    conv_state: Tensor | None,
    state: Tensor | None,
    groups: int,
    d_state: int,
    eps: float,
    dt_min: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """zxBCdt: (b, l, 2e + 2gn + h), the input projection. Returns the output projection's input (b, l, e), both states."""
    e = norm_weight.shape[0]
    z, xBC, raw = _parts(zxBCdt, e, groups * d_state)
    xBC, last_inputs = conv.forward(xBC, conv_weight, conv_bias, conv_state)
    scan = _ssd_inputs(xBC, raw, dt_bias, A_log, e, groups, d_state, dt_min)
    y, last = ssd_forward(*scan, D.to(scan[1].dtype), state)
    return norm.forward(y.flatten(2), z, norm_weight, eps, groups, False).view(z.shape), last_inputs, last


_operator = torch.library.custom_op("zamba_lab::mamba2", _plain, mutates_args=(), device_types="cpu")


@torch.library.custom_op("zamba_lab::mamba2_backward", mutates_args=(), device_types="cpu")
def mamba2_backward(
    zxBCdt: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor | None,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    norm_weight: Tensor,
    conv_state: Tensor | None,
    state: Tensor | None,
    groups: int,
    d_state: int,
    eps: float,
    dt_min: float,
    dout: Tensor,
    dlast_inputs: Tensor | None,
    dlast: Tensor | None,
) -> list[Tensor]:
    """The gradients of the first nine, in order; of those not given, something empty."""
    e, gn, wide = norm_weight.shape[0], groups * d_state, COMPUTED[zxBCdt.dtype]
    z, xBC, raw = _parts(zxBCdt, e, gn)
    gradient = empty(zxBCdt, *zxBCdt.shape)
    dz, dxBC, draw = _parts(gradient, e, gn)

    mixed, _ = conv.forward(xBC, conv_weight, conv_bias, conv_state)
    x, dt, A, B, C = _ssd_inputs(mixed, raw, dt_bias, A_log, e, groups, d_state, dt_min)
    y, _ = ssd_forward(x, dt, A, B, C, D.to(wide), state)
    dy = empty(y, *y.shape)
    dnorm = norm.backward(y.flatten(2), z, norm_weight, eps, groups, dout, dy.flatten(2), dz)
    dmixed = empty(mixed, *mixed.shape)
    ddt, dA, dB, dC, dD, dstate = ssd_backward(x, dt, A, B, C, D.to(wide), state, dy, dlast, dmixed[..., :e].unflatten(-1, x.shape[2:]))
    dmixed[..., e : e + gn] = dB.flatten(2)
    dmixed[..., e + gn :] = dC.flatten(2)
    dweight, dbias, dconv_state = conv.backward(xBC, conv_weight, conv_bias, conv_state, dmixed, dlast_inputs, dxBC)
    ddt *= torch.sigmoid(raw.to(wide) + dt_bias.to(wide))
    if dt_min > 0:
        ddt *= dt > dt_min
    draw.copy_(ddt)
    nothing = zxBCdt.new_empty(0)
    return [
        gradient,
        dweight.to(conv_weight.dtype).contiguous(),
        nothing if conv_bias is None else dbias.to(conv_bias.dtype).clone(),
        ddt.sum((0, 1)).to(dt_bias.dtype),
        (dA * A).to(A_log.dtype),
        dD.to(D.dtype),
        dnorm.to(norm_weight.dtype),
        nothing.clone() if dconv_state is None else dconv_state,
        nothing.clone() if state is None else dstate,
    ]


@_operator.register_fake
def _(zxBCdt, conv_weight, conv_bias, dt_bias, A_log, D, norm_weight, conv_state, state, groups, d_state, eps, dt_min):
    (b, l, _), e, h = zxBCdt.shape, norm_weight.shape[0], A_log.shape[0]
    return (
        zxBCdt.new_empty(b, l, e),
        zxBCdt.new_empty(b, conv_weight.shape[1] - 1, e + 2 * groups * d_state),
        zxBCdt.new_empty(b, h, e // h, d_state, dtype=COMPUTED[zxBCdt.dtype]),
    )


@mamba2_backward.register_fake
def _(*arguments):
    zxBCdt = arguments[0]
    return [zxBCdt.new_empty(0) if t is None else t.new_empty(t.shape) for t in arguments[:9]]


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:9])
    ctx.sizes = inputs[9:]


def _gradients(ctx, dout, dlast_inputs, dlast):
    saved = ctx.saved_tensors
    if dout is None:
        dout = torch.zeros_like(_parts(saved[0], saved[6].shape[0], 0)[0])
    grads = torch.ops.zamba_lab.mamba2_backward(*saved, *ctx.sizes, dout, dlast_inputs, dlast)
    return (*(None if t is None else g for t, g in zip(saved, grads)), None, None, None, None)


_operator.register_autograd(_gradients, setup_context=_save)


def _flops(zxBCdt_shape, conv_weight_shape, *others) -> int:
    """The scan's, as `native.ssd` counts them, and the convolution's multiply-adds."""
    (b, l, _), (channels, taps), e, d_state = zxBCdt_shape, conv_weight_shape, others[4][0], others[8]
    return b * l * (6 * e * d_state + 2 * channels * taps)


@register_flop_formula(torch.ops.zamba_lab.mamba2)
def _(*shapes, **kwargs) -> int:
    return _flops(*shapes)


@register_flop_formula(torch.ops.zamba_lab.mamba2_backward)
def _(*shapes, **kwargs) -> int:
    """The scan and convolution once more, and the two gradients' share: three times the forward pass, in round terms."""
    return 3 * _flops(*shapes)
