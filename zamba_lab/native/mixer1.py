"""All of a Mamba-1 mixer between its two projections as one operator: convolution, projections, step size, scan and gate.

What it computes is what `blocks/mamba1.py` spells out, by the same native kernels, and as in `mixer2.py` only its input is
kept for the gradient. The projections inside are products head by head, on views: a head's columns of x are a matrix as
they lie. What is projected is (h, b l, i), one head's matrix after the other.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from zamba_lab.native import conv, direct, scan
from zamba_lab.native.call import COMPUTED
from zamba_lab.native.memory import empty

GIVEN = 10  # arguments that are tensors


def _heads(x: Tensor) -> Tensor:
    """(b, l, h, p) without gaps -> (h, b l, p), a view."""
    return x.flatten(0, 1).transpose(0, 1)


def _tokens(x: Tensor, like: Tensor) -> Tensor:
    """(h, b l, i) -> (b, l, h, i), a view."""
    return x.transpose(0, 1).unflatten(0, like.shape[:2])


def _products(x: Tensor, weight: Tensor, out: Tensor | None = None) -> Tensor:
    """(h, m, i) and (h, i, j) -> (h, m, j), added to `out` if given. By head, as each reads and writes where things lie."""
    if out is None:
        out = x.new_empty(*x.shape[:2], weight.shape[2])
        for a, b, to in zip(x, weight, out):
            torch.mm(a, b, out=to)
    else:
        for a, b, to in zip(x, weight, out):
            to.addmm_(a, b)
    return out


def _scan_inputs(
    x: Tensor, x_proj: Tensor, dt_proj: Tensor, dt_bias: Tensor, A_log: Tensor, dt_min: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """dt, A, B, C of the scan, dt and A in the computing type; dt before its softplus; and dt's low rank, B, C as one."""
    wide, rank, n = COMPUTED[x.dtype], dt_proj.shape[2], A_log.shape[2]
    inner = _products(_heads(x), x_proj.mT)  # (h, b l, r + 2n)
    raw = _products(inner[..., :rank], dt_proj.mT).to(wide).add_(dt_bias.to(wide)[:, None])
    dt = F.softplus(raw)
    dt = dt.clamp_(min=dt_min) if dt_min > 0 else dt
    B, C = _tokens(inner, x)[..., rank:].split((n, n), dim=-1)
    return _tokens(dt, x), -torch.exp(A_log.to(wide)), B, C, _tokens(raw, x), inner


def mamba1(*arguments) -> tuple[Tensor, Tensor, Tensor]:
    """The mixer between its projections; arguments and results as `_plain` has them."""
    return (_plain if direct.bare(*arguments) else _operator)(*arguments)


def _plain(
    xz: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor | None,
    x_proj: Tensor,
    dt_proj: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    conv_state: Tensor | None,
    state: Tensor | None,
    dt_min: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """xz: (b, l, 2e), the input projection. Returns the output projection's input (b, l, e), both states."""
    x, z = xz.chunk(2, dim=-1)
    x, last_inputs = conv.forward(x, conv_weight, conv_bias, conv_state)
    x = x.unflatten(-1, D.shape)
    dt, A, B, C, _, _ = _scan_inputs(x, x_proj, dt_proj, dt_bias, A_log, dt_min)
    y, last, _ = scan.forward(x, dt, A, B, C, D.to(dt.dtype), state, False)
    return y.flatten(2).mul_(F.silu(z)), last_inputs, last


_operator = torch.library.custom_op("zamba_lab::mamba1", _plain, mutates_args=(), device_types="cpu")


@torch.library.custom_op("zamba_lab::mamba1_backward", mutates_args=(), device_types="cpu")
def mamba1_backward(
    xz: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor | None,
    x_proj: Tensor,
    dt_proj: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    conv_state: Tensor | None,
    state: Tensor | None,
    dt_min: float,
    dout: Tensor,
    dlast_inputs: Tensor | None,
    dlast: Tensor | None,
) -> list[Tensor]:
    """The gradients of the first ten, in order; of those not given, something empty."""
    rank, n, wide = dt_proj.shape[2], A_log.shape[2], COMPUTED[xz.dtype]
    given, z = xz.chunk(2, dim=-1)
    gradient = empty(xz, *xz.shape)
    dgiven, dz = gradient.chunk(2, dim=-1)

    x, _ = conv.forward(given, conv_weight, conv_bias, conv_state)
    x = x.unflatten(-1, D.shape)
    dt, A, B, C, raw, inner = _scan_inputs(x, x_proj, dt_proj, dt_bias, A_log, dt_min)
    y, _, starts = scan.forward(x, dt, A, B, C, D.to(wide), state, True)
    torch.ops.aten.silu_backward.grad_input(y.flatten(2).mul_(dout), z, grad_input=dz)
    dx, ddt, dA, dB, dC, dD, dstate = scan.backward(x, dt, A, B, C, D.to(wide), starts, (dout * F.silu(z)).unflatten(-1, D.shape), dlast)
    ddt *= raw.sigmoid_() if dt_min <= 0 else raw.sigmoid_().mul_(dt > dt_min)
    dinner = torch.empty_like(inner)
    toward_dt = _heads(ddt.to(inner.dtype))  # (h, b l, p)
    _products(toward_dt, dt_proj, dinner[..., :rank].zero_())
    dinner[..., rank:] = _heads(torch.cat([dB, dC], dim=-1))
    _products(dinner, x_proj, _heads(dx))
    dweight, dbias, dconv_state = conv.backward(given, conv_weight, conv_bias, conv_state, dx.flatten(2), dlast_inputs, dgiven)
    nothing = xz.new_empty(0)
    return [
        gradient,
        dweight.to(conv_weight.dtype).contiguous(),
        nothing if conv_bias is None else dbias.to(conv_bias.dtype).clone(),
        _products(dinner.mT, _heads(x)),
        _products(toward_dt.mT, inner[..., :rank]),
        ddt.sum((0, 1)).to(dt_bias.dtype),
        (dA * A).to(A_log.dtype),
        dD.to(D.dtype),
        nothing.clone() if dconv_state is None else dconv_state,
        nothing.clone() if state is None else dstate,
    ]


@_operator.register_fake
def _(xz, conv_weight, conv_bias, x_proj, dt_proj, dt_bias, A_log, D, conv_state, state, dt_min):
    b, l, e = xz.shape[0], xz.shape[1], xz.shape[2] // 2
    return (xz.new_empty(b, l, e), xz.new_empty(b, conv_weight.shape[1] - 1, e), xz.new_empty(b, *A_log.shape, dtype=COMPUTED[xz.dtype]))


@mamba1_backward.register_fake
def _(*arguments):
    return [arguments[0].new_empty(0) if t is None else t.new_empty(t.shape) for t in arguments[:GIVEN]]


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:GIVEN])
    ctx.dt_min = inputs[GIVEN]


def _gradients(ctx, dout, dlast_inputs, dlast):
    saved = ctx.saved_tensors
    if dout is None:
        dout = torch.zeros_like(saved[0].chunk(2, dim=-1)[0])
    grads = torch.ops.zamba_lab.mamba1_backward(*saved, ctx.dt_min, dout, dlast_inputs, dlast)
    return *(None if t is None else g for t, g in zip(saved, grads)), None


_operator.register_autograd(_gradients, setup_context=_save)


def _flops(xz_shape, conv_weight_shape, _, x_proj_shape, dt_proj_shape, *others) -> int:
    """The scan's, as `native.selective_scan` counts them, and the products' and convolution's multiply-adds."""
    (b, l, _), (e, taps), (_, inner, _), rank, n = (
        xz_shape,
        conv_weight_shape,
        x_proj_shape,
        dt_proj_shape[2],
        (x_proj_shape[1] - dt_proj_shape[2]) // 2,
    )
    return b * l * e * (6 * n + 2 * (inner + rank + taps))


@register_flop_formula(torch.ops.zamba_lab.mamba1)
def _(*shapes, **kwargs) -> int:
    return _flops(*shapes)


@register_flop_formula(torch.ops.zamba_lab.mamba1_backward)
def _(*shapes, **kwargs) -> int:
    """All of it once more, and the two gradients' share: three times the forward pass, in round terms."""
    return 3 * _flops(*shapes)
