"""One token through a layer's parts other than matrix products, native (`step.inc`). For decoding: see `direct.py`.

Results are what the forms in `ops/` give, but rounded once where those round after every operation. What may be of any
type and shape is checked by `ops`; here tensors have one stored type, and parameters are converted where they differ.
"""

import torch
from torch import Tensor

from zamba_lab.native.call import COMPUTED, suffix
from zamba_lab.native.direct import run
from zamba_lab.native.memory import empty


def mamba2_step(
    zxBCdt: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor | None,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    norm_weight: Tensor,
    conv: Tensor | None,
    state: Tensor | None,
    n_groups: int,
    d_state: int,
    eps: float,
    dt_min: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The Mamba-2 mixer between its projections.

    Args:
        zxBCdt: (b, 1, e + (e + 2gn) + h), the input projection's result: z | x, B, C | dt.
        conv_weight: (e + 2gn, w). conv_bias: (e + 2gn,) or None. dt_bias, A_log, D: (h,). norm_weight: (e,).
        conv: (b, w-1, e + 2gn). state: (b, h, p, n). None: zeros.

    Returns: y (b, 1, e) for the output projection, and the next conv and state, new tensors.
    """
    b, e, (channels, taps), h = len(zxBCdt), len(norm_weight), conv_weight.shape, len(D)
    io = zxBCdt.dtype
    conv, state = _past(zxBCdt, conv, state, (b, taps - 1, channels), (b, h, e // h, d_state))
    wide_rates, dt_bias, A_log, D = _rates(io, dt_bias, A_log, D)
    y, conv_next, following = zxBCdt.new_empty(b, 1, e), torch.empty_like(conv), empty(state, *state.shape, huge=False)
    run(
        "mamba2_step" + suffix(zxBCdt),
        "iiiiiiddi" + "ppppppppp" + "ooo",
        b,
        h,
        e // h,
        n_groups,
        d_state,
        taps,
        dt_min,
        eps,
        wide_rates,
        zxBCdt,
        _as(conv_weight, io),
        _as(conv_bias, io),
        conv,
        dt_bias,
        A_log,
        D,
        _as(norm_weight, io),
        state,
        y,
        conv_next,
        following,
    )
    return y, conv_next, following


def mamba1_step(
    xz: Tensor,
    conv_weight: Tensor,
    conv_bias: Tensor | None,
    x_proj: Tensor,
    dt_proj: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
    conv: Tensor | None,
    state: Tensor | None,
    dt_min: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The Mamba-1 mixer between its projections.

    Args:
        xz: (b, 1, 2e), the input projection's result: x | z.
        conv_weight: (e, w). conv_bias: (e,) or None. x_proj: (h, r + 2n, p). dt_proj: (h, p, r). dt_bias, D: (h, p).
        A_log: (h, p, n). conv: (b, w-1, e). state: (b, h, p, n). None: zeros.

    Returns: y (b, 1, e) for the output projection, and the next conv and state, new tensors.
    """
    b, (e, taps), (h, p, n), rank = len(xz), conv_weight.shape, A_log.shape, dt_proj.shape[-1]
    io = xz.dtype
    conv, state = _past(xz, conv, state, (b, taps - 1, e), (b, h, p, n))
    wide_rates, dt_bias, A_log, D = _rates(io, dt_bias, A_log, D)
    y, conv_next, following = xz.new_empty(b, 1, e), torch.empty_like(conv), empty(state, *state.shape, huge=False)
    run(
        "mamba1_step" + suffix(xz),
        "iiiiiidi" + "pppppppppp" + "ooo",
        b,
        h,
        p,
        n,
        rank,
        taps,
        dt_min,
        wide_rates,
        xz,
        _as(conv_weight, io),
        _as(conv_bias, io),
        conv,
        _as(x_proj, io),
        _as(dt_proj, io),
        dt_bias,
        A_log,
        D,
        state,
        y,
        conv_next,
        following,
    )
    return y, conv_next, following


def _past(like: Tensor, conv: Tensor | None, state: Tensor | None, conv_shape: tuple, state_shape: tuple) -> tuple[Tensor, Tensor]:
    """What the mixer carried, without gaps; zeros where it carried nothing. Of the right types and shapes: `Mixer.fitted`."""
    conv = like.new_zeros(conv_shape) if conv is None else conv.contiguous()
    # not new_zeros: every page of each layer's would be met for the first time
    state = empty(like, *state_shape, dtype=COMPUTED[like.dtype], huge=False).zero_() if state is None else state.contiguous()
    return conv, state


def _as(t: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return t if t is None or t.dtype == dtype else t.to(dtype)


def _rates(io: torch.dtype, *rates: Tensor) -> tuple[int, Tensor, ...]:
    """Whether they go in as computed rather than as stored, and they."""
    if all(t.dtype == io for t in rates):
        return 0, *rates
    return 1, *(_as(t, COMPUTED[io]) for t in rates)


def attend_step(
    q: Tensor, k: Tensor, v: Tensor, turn: tuple[Tensor, Tensor] | None, K: Tensor, V: Tensor, s: int, seen: Tensor | None, scale: float
) -> Tensor:
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
    run(
        "attend_step" + suffix(q),
        "iiiilrd" + "pppppiuup" + "lo",
        b,
        q.shape[-1] // p,
        g,
        p,
        s,
        room,
        scale,
        q,
        k,
        v,
        cosine,
        sine,
        apart,
        K,
        V,
        seen,
        s,
        y,
    )
    return y


def norm_step(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`ops.norm.rms_norm` without groups. x: (..., d), few rows without gaps; weight: (d,), x's type."""
    y, d = torch.empty_like(x), len(weight)
    run("norm_step" + suffix(x), "iidppo", x.numel() // d, d, eps, x, weight, y)
    return y


def gate_step(both: Tensor, kind: int) -> Tensor:
    """`ops.gate.gated`. both: (..., 2d), few rows without gaps; kind: its place in `ops.gate.ACTIVATION`."""
    d = both.shape[-1] // 2
    y = both.new_empty(*both.shape[:-1], d)
    run("gate_forward" + suffix(both), "iiipo", both.numel() // (2 * d), d, kind, both, y)
    return y


def plus_step(a: Tensor, b: Tensor) -> Tensor:
    """a + b, of one shape and type, without gaps."""
    y = torch.empty_like(a)
    run("plus_step" + suffix(a), "ippo", a.numel(), a, b, y)
    return y


def join_step(a: Tensor, b: Tensor) -> Tensor:
    """Rows side by side. a: (..., n), b: (..., m), of one type, without gaps. Returns (..., n + m)."""
    n, m = a.shape[-1], b.shape[-1]
    y = a.new_empty(*a.shape[:-1], n + m)
    run("join_step" + suffix(a), "iiippo", a.numel() // n, n, m, a, b, y)
    return y
