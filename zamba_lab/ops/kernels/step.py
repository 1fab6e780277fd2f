"""One token through a layer's parts other than matrix products, native (`step.inc`). For decoding: see `direct.py`.

Results are what the forms in `ops/` give, but rounded once where those round after every operation. What may be of any
type and shape is checked by `ops`; here tensors have one stored type, and parameters are converted where they differ.
"""

import torch
from torch import Tensor

from zamba_lab.ops.kernels.call import COMPUTED, suffix
from zamba_lab.ops.kernels.direct import address, checked, function
from zamba_lab.ops.kernels.memory import empty


def mamba2_step(zxBCdt: Tensor, conv_weight: Tensor, conv_bias: Tensor | None, dt_bias: Tensor, A_log: Tensor, D: Tensor,
                norm_weight: Tensor, conv: Tensor | None, state: Tensor | None, n_groups: int, d_state: int, eps: float,
                dt_min: float) -> tuple[Tensor, Tensor, Tensor]:
    """The Mamba-2 mixer between its projections.

    Args:
        zxBCdt: (b, 1, e + (e + 2gn) + h), the input projection's result: z | x, B, C | dt.
        conv_weight: (e + 2gn, w). conv_bias: (e + 2gn,) or None. dt_bias, A_log, D: (h,). norm_weight: (e,).
        conv: (b, w-1, e + 2gn). state: (b, h, p, n). None: zeros.

    Returns: y (b, 1, e) for the output projection, and the next conv and state, new tensors.
    """
    b, e, (channels, taps), h = len(zxBCdt), len(norm_weight), conv_weight.shape, len(D)
    io, wide = zxBCdt.dtype, COMPUTED[zxBCdt.dtype]
    conv = zxBCdt.new_zeros(b, taps - 1, channels) if conv is None else conv.contiguous()
    if state is None:
        state = zxBCdt.new_zeros(b, h, e // h, d_state, dtype=wide)
    state, conv_weight, norm_weight = state.contiguous(), conv_weight.to(io), norm_weight.to(io)
    conv_bias = None if conv_bias is None else conv_bias.to(io)
    dt_bias, A_log, D = dt_bias.to(wide), A_log.to(wide), D.to(wide)
    y, conv_next, following = zxBCdt.new_empty(b, 1, e), torch.empty_like(conv), empty(state, *state.shape)
    name = "mamba2_step" + suffix(zxBCdt)
    checked(function(name, "iiiiiiddpppppppppppp")(
        torch.get_num_threads(), b, h, e // h, n_groups, d_state, taps, dt_min, eps, zxBCdt.data_ptr(),
        conv_weight.data_ptr(), address(conv_bias), conv.data_ptr(), dt_bias.data_ptr(), A_log.data_ptr(), D.data_ptr(),
        norm_weight.data_ptr(), state.data_ptr(), y.data_ptr(), conv_next.data_ptr(), following.data_ptr()), name)
    return y, conv_next, following


def attend_step(q: Tensor, k: Tensor, v: Tensor, turn: tuple[Tensor, Tensor] | None, K: Tensor, V: Tensor, s: int,
                seen: Tensor | None, scale: float) -> Tensor:
    """Attention of one new token; writes its key, turned, and its value to position s - 1 of the buffers.

    Args:
        q: (b, 1, h p). k, v: (b, 1, g p), h / g query heads share one of them.
        turn: cosine and sine of the position's angles, (b or 1, 1, 1, p/2), q's type; None: no positions.
        K, V: (b, g, room, p) keys and values; the first s positions count. seen: (b, 1, 1, s) bool, or None: all.

    Returns: (b, 1, h p).
    """
    b, g, room, p = K.shape
    cosine, sine = (None, None) if turn is None else turn
    apart = 0 if turn is None or len(cosine) == 1 else p // 2
    y = torch.empty_like(q)
    name = "attend_step" + suffix(q)
    checked(function(name, "iiiiiidpppppippp" + "ip")(
        torch.get_num_threads(), b, q.shape[-1] // p, g, p, s, room, scale, q.data_ptr(), k.data_ptr(), v.data_ptr(),
        address(cosine), address(sine), apart, K.data_ptr(), V.data_ptr(), address(seen), s, y.data_ptr()), name)
    return y


def norm_step(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`ops.norm.rms_norm` without groups. x: (..., d), few rows without gaps; weight: (d,), x's type."""
    y, name = torch.empty_like(x), "norm_step" + suffix(x)
    checked(function(name, "iidppp")(1, x.numel() // len(weight), len(weight), eps, x.data_ptr(), weight.data_ptr(),
                                     y.data_ptr()), name)
    return y


def gate_step(both: Tensor, kind: int) -> Tensor:
    """`ops.gate.gated`. both: (..., 2d), few rows without gaps; kind: its place in `ops.gate.ACTIVATION`."""
    d = both.shape[-1] // 2
    y, name = both.new_empty(*both.shape[:-1], d), "gate_step" + suffix(both)
    checked(function(name, "iiipp")(torch.get_num_threads(), both.numel() // (2 * d), d, kind, both.data_ptr(),
                                    y.data_ptr()), name)
    return y
