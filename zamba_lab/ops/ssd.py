"""The Mamba-2 state-space model (SSD) in forms that agree: recurrence, one step, quadratic (attention), chunked.

Dao & Gu 2024, "Transformers are SSMs". Per head, with x_t in R^p, B_t and C_t in R^n, a scalar step size dt_t > 0 and
a scalar decay rate A < 0:

    state_t = exp(dt_t A) state_{t-1} + dt_t x_t B_t^T              a (p, n) matrix
    y_t     = state_t C_t

All take (x, dt, A, B, C, state); heads in one group share B and C. The gate and the norm are the mixer's business. Decays and
states are float32 or wider; y has x's dtype. A position with dt = 0 leaves the state as it was: padding.
"""

from collections.abc import Callable

import torch
from einops import einsum, rearrange
from torch import Tensor

from zamba_lab import native


def ssd_recurrence(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None, edit: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Run the SSM one token at a time: the definition the faster forms are tested against.

    Args:
        x: (b, l, h, p) inputs after convolution and SiLU.
        dt: (b, l, h) step sizes, >= 0 (softplus already applied).
        A: (h,) decay rates, < 0.
        B, C: (b, l, g, n); head i reads group i // (h // g).
        state: (b, h, p, n) to start from; zeros if None.
        edit: changes the states, and the change is carried on. It is called once per token with all states so far,
            (b, l, h, p, n), zeros from the next token on; of what it returns, this token's state is used.

    Returns:
        y: (b, l, h, p) without the D skip; states: (b, l, h, p, n), one after each token.
    """
    return token_by_token(ssd_step, x, dt, A, B, C, state, edit)


def ssd_step(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """One token: the form decoding uses. Arguments as `ssd_recurrence` without the l axis.

    Returns: y (b, h, p), state (b, h, p, n).
    """
    state = start_state(x[:, None], B[:, None], state)
    wide = state.dtype
    dt = rearrange(dt.to(wide), "b (g i) -> b g i 1", g=B.shape[1])  # h = (g i)
    decay = torch.exp(dt * rearrange(A.to(wide), "(g i) -> g i 1", g=B.shape[1]))
    write = dt * rearrange(x.to(wide), "b (g i) p -> b g i p", g=B.shape[1])
    write = write[..., None] * rearrange(B.to(wide), "b g n -> b g 1 1 n")
    grouped = rearrange(state, "b (g i) p n -> b g i p n", g=B.shape[1])
    state = rearrange(decay[..., None] * grouped + write, "b g i p n -> b (g i) p n")
    return read(state, C).to(x.dtype), state


def token_by_token(step: Callable, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None, edit: Callable | None):
    """The recurrence of either SSM from its step. Arguments and results as `ssd_recurrence`."""
    state, l = start_state(x, B, state), x.shape[1]
    ys, states = [], []
    for t in range(l):
        y, state = step(x[:, t], dt[:, t], A, B[:, t], C[:, t], state)
        if edit is not None:
            so_far = torch.stack([*states, state, *[torch.zeros_like(state)] * (l - t - 1)], dim=1)
            state = edit(so_far)[:, t]
            y = read(state, C[:, t]).to(x.dtype)
        ys.append(y)
        states.append(state)
    return torch.stack(ys, dim=1), torch.stack(states, dim=1)


def ssd_quadratic(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The same map as masked attention without a softmax: the dual form of the paper.

        y = (L * C B^T) (dt x)          L_ts = exp(A (dt_{s+1} + ... + dt_t)) for s <= t, else 0

    C plays the query, B the key, dt x the value, and L is a decaying causal mask. Costs O(l^2): for teaching, and as a
    witness. Arguments as `ssd_recurrence`. Returns: y (b, l, h, p), the last state (b, h, p, n).
    """
    return _chunk(x, dt, A, B, C, start_state(x, B, state))


def ssd_chunked(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None, chunk_size: int = 64
) -> tuple[Tensor, Tensor]:
    """The fast form: quadratic inside a chunk, recurrent between chunks, all of it matrix products.

    With a_t = dt_t A and u_t = dt_t x_t, in a chunk of q tokens that starts from `state`:

        L_ts  = exp(a_{s+1} + ... + a_t) for s <= t, else 0           exp(segsum(a))
        y_t   = sum_{s <= t} L_ts <C_t, B_s> u_s                      the within-chunk term
              + exp(a_1 + ... + a_t) state C_t                        and what the chunks before left
        own   = sum_s L_qs u_s B_s^T                                  the chunk's own state
        state = exp(a_1 + ... + a_q) state + own                      the between-chunk recurrence

    O(l (chunk_size + n)) a channel. Any l; the last chunk may be short. Arguments as `ssd_recurrence`;
    chunk_size >= 1. Returns: y (b, l, h, p), the last state (b, h, p, n).
    """
    return chunk_by_chunk(_chunk, x, dt, A, B, C, state, chunk_size)


def chunk_by_chunk(
    chunk: Callable, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None, chunk_size: int
) -> tuple[Tensor, Tensor]:
    """The between-chunk recurrence of either SSM: `chunk`, the equations of a chunk that starts from a state, one after the other."""
    state = start_state(x, B, state)
    if not x.numel():  # there is nothing to split, and F.pad of torch 2.9 refuses an empty axis
        return torch.zeros_like(x), state
    ys = []
    for xs, dts, Bs, Cs in zip(*(part.split(chunk_size, dim=1) for part in (x, dt, B, C)), strict=True):
        y, state = chunk(xs, dts, A, Bs, Cs, state)
        ys.append(y)
    return torch.cat(ys, dim=1), state


def _chunk(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """The equations of `ssd_chunked`, in its order. C B^T and the states' products run once per group, h = (g i)."""
    wide, g = state.dtype, B.shape[2]
    dt = rearrange(dt.to(wide), "b q (g i) -> b g i q", g=g)
    u = rearrange(x.to(wide), "b q (g i) p -> b g i q p", g=g) * dt[..., None]
    B, C = (rearrange(part.to(wide), "b q g n -> b g q n") for part in (B, C))
    segments, total = segsum(dt * rearrange(A.to(wide), "(g i) -> g i 1", g=g))
    L = segments.exp_()  # (b, g, i, q, q), the largest table there is: made in one buffer

    (finite_u, later_u), (finite_B, later_B) = without_infinities(u), without_infinities(B)
    within = ((C @ finite_B.mT)[:, :, None] * L) @ finite_u  # (b, g, i, q, p)
    within = within + later_u + later_B.sum(-1)[:, :, None, :, None]

    # The heads of a group stand side by side as columns of one matrix.
    columns = rearrange(state, "b (g i) p n -> b g n (i p)", g=g)
    before = rearrange(C @ columns, "b g q (i p) -> b g i q p", i=dt.shape[2]) * torch.exp(total)[..., None]

    rows = rearrange(u * L[..., -1, :, None], "b g i q p -> b g (i p) q")
    own = rearrange(rows @ B, "b g (i p) n -> b (g i) p n", i=dt.shape[2])
    state = rearrange(torch.exp(total[..., -1]), "b g i -> b (g i) 1 1") * state + own
    return rearrange(within + before, "b g i q p -> b q (g i) p").to(x.dtype), state


def segsum(a: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over segments: (..., q) -> (..., q, q), a_{s+1} + ... + a_t at (t, s) and -inf for s > t; and the running sums (..., q).

    A segment is a difference of two running sums, each of which may be much larger: rounding these first would cost two digits
    where decays are strong (A = -16, dt = 2, q = 64: 2e-5 instead of 1e-7). So the sums are float64, and what rounding takes off
    them is put back into the difference (a constant to autograd).
    """
    wider = a.dtype if a.device.type == "mps" else torch.float64  # that device has no float64
    exact = torch.cumsum(a.to(wider), dim=-1)
    total = exact.to(a.dtype)
    rest = (exact.detach() - total.detach().to(wider)).to(a.dtype)
    future = torch.ones(a.shape[-1], a.shape[-1], dtype=torch.bool, device=a.device).triu(1)
    segments = total[..., :, None] - total[..., None, :]
    return segments.add_(rest[..., :, None]).sub_(rest[..., None, :]).masked_fill_(future, -torch.inf), total


def without_infinities(t: Tensor) -> tuple[Tensor, Tensor]:
    """t, (..., q, i), with 0 for NaN and infinities; and what to add to a causal sum over q: 0 up to the first of them, itself not
    finite from there on. Products with a mask's zeros would spread them to earlier positions: 0 * NaN is NaN."""
    finite = torch.where(t.isfinite(), t, 0)
    return finite, torch.cumsum(t.detach() - finite.detach(), dim=-2)


def ssd(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None, chunk_size: int = 64, D: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The whole sequence: natively where a native form serves, else by `ssd_chunked`, whose arguments these are; and the skip.

    D: (h,) for y + D x, or None. chunk_size means nothing to native forms. Returns: y (b, l, h, p), the last state (b, h, p, n).
    """
    if form := native.find("ssd", x, dt, A, B, C, D, state):
        return form(x, dt, A, B, C, D, state)
    return pure(ssd_step, ssd_chunked, x, dt, A, B, C, state, chunk_size, D)


def pure(
    step: Callable,
    chunked: Callable,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    state: Tensor | None,
    chunk_size: int,
    D: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Either SSM without a native form, and the skip: one token by its step, more by its chunks."""
    if x.shape[1] == 1:
        y, state = step(x[:, 0], dt[:, 0], A, B[:, 0], C[:, 0], state)
        y = y[:, None]
    else:
        y, state = chunked(x, dt, A, B, C, state, chunk_size)
    return y if D is None else skip(y, x, D), state


def skip(y: Tensor, x: Tensor, D: Tensor) -> Tensor:
    """y + D x per head, in y's dtype. x, y: (b, l, h, p); D: (h,), or (h, p) for Mamba-1."""
    return y + (D if D.ndim == 2 else D[:, None]).to(y.dtype) * x


def start_state(x: Tensor, B: Tensor, state: Tensor | None) -> Tensor:
    """The state to begin from, (b, h, p, n), in float32 or wider."""
    wide = torch.promote_types(x.dtype, torch.float32)
    b, _, h, p = x.shape
    return x.new_zeros(b, h, p, B.shape[-1], dtype=wide) if state is None else state.to(wide)


def read(state: Tensor, C: Tensor) -> Tensor:
    """y = state C per head. state: (..., h, p, n); C: (..., g, n), or of every head its own: (..., h, n). Returns (..., h, p)."""
    grouped = rearrange(state, "... (g i) p n -> ... g i p n", g=C.shape[-2])
    return rearrange(einsum(grouped, C.to(state.dtype), "... g i p n, ... g n -> ... g i p"), "... g i p -> ... (g i) p")
