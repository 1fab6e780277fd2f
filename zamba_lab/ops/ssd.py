"""The Mamba-2 state-space model, in forms that agree: recurrence, quadratic (attention), chunked, one step, native.

Dao & Gu 2024, "Transformers are SSMs". Per head, with x_t in R^p, B_t and C_t in R^n, a scalar step size dt_t > 0 and
a scalar decay rate A < 0:

    state_t = exp(dt_t A) state_{t-1} + dt_t x_t B_t^T              a (p, n) matrix
    y_t     = state_t C_t

`ssd` picks the fastest that serves. All take (x, dt, A, B, C, state); heads in one group share B and C. The D skip, gate and norm are the mixer's business.
Decays and states are float32 or wider; y has x's dtype. A position with dt = 0 leaves the state as it was: padding.
"""

from collections.abc import Callable

import torch
from einops import einsum, rearrange
from torch import Tensor

from zamba_lab import native
from zamba_lab.native import gpu


def ssd(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None, chunk_size: int = 64, D: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The whole sequence by the fastest form that serves: the native kernel, the CUDA one, or `ssd_chunked`. Arguments are the latter's.

    D: (h,) the skip, y + D x, or None. The native kernel has chunks of its own, 32 tokens; chunk_size means nothing
    to it. Returns: y (b, l, h, p), the last state (b, h, p, n).
    """
    if native.serves(x, B, C):
        wide = torch.promote_types(x.dtype, torch.float32)
        dt, A, D, state = (None if t is None else t.to(wide) for t in (dt, A, D, state))
        return native.ssd(x, dt, A, B, C, D, state)
    if gpu.serves("ssd", x, B, C):
        return gpu.ssd(x, dt, A, B, C, D, state, chunk_size)
    if x.shape[1] == 1:
        y, state = ssd_step(x[:, 0], dt[:, 0], A, B[:, 0], C[:, 0], state)
        y = y[:, None]
    else:
        y, state = ssd_chunked(x, dt, A, B, C, state, chunk_size)
    return y if D is None else skip(y, x, D), state


def skip(y: Tensor, x: Tensor, D: Tensor) -> Tensor:
    """y + D x per head, in y's dtype. x, y: (b, l, h, p); D: (h,), or (h, p) for Mamba-1."""
    return y + (D if D.ndim == 2 else D[:, None]).to(y.dtype) * x


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
    state = start_state(x, B, state)
    ys, states = [], []
    for t in range(x.shape[1]):
        y, state = ssd_step(x[:, t], dt[:, t], A, B[:, t], C[:, t], state)
        if edit is not None:
            state = edit_latest(edit, states, state, length=x.shape[1])
            y = _read(state, C[:, t]).to(x.dtype)
        ys.append(y)
        states.append(state)
    return torch.stack(ys, dim=1), torch.stack(states, dim=1)


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
    return _read(state, C).to(x.dtype), state


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
    """The fast form: quadratic inside a chunk, recurrent between chunks, all of it matrix multiplications.

    O(l (chunk_size + n)) a channel. Any l; the last chunk may be short. Arguments as `ssd_recurrence`;
    chunk_size >= 1. Returns: y (b, l, h, p), the last state (b, h, p, n).
    """
    state = start_state(x, B, state)
    if not x.shape[1]:
        return torch.zeros_like(x), state
    ys = []
    for chunk in zip(*(part.split(chunk_size, dim=1) for part in (x, dt, B, C))):
        xs, dts, Bs, Cs = chunk
        y, state = _chunk(xs, dts, A, Bs, Cs, state)
        ys.append(y)
    return torch.cat(ys, dim=1), state


def _chunk(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One chunk of q tokens from a (b, h, p, n) state. C B^T and the state products run once per *group*."""
    wide, groups = state.dtype, B.shape[2]
    dt = rearrange(dt.to(wide), "b q (g i) -> b g i q", g=groups)  # h = (g i)
    B, C = (rearrange(part.to(wide), "b q g n -> b g q n") for part in (B, C))
    log_decay, rest = _running_sum(dt * rearrange(A.to(wide), "(g i) -> g i 1", g=groups))
    value = rearrange(x.to(wide), "b q (g i) p -> b g i q p", g=groups) * dt[..., None]

    # Inside the chunk. The sum is made in one buffer: these (q, q) tables of every head are the largest there are.
    L = log_decay[..., :, None] + (-log_decay)[..., None, :]  # (b, g, i, q, q)
    L = L.add_(rest[..., :, None]).sub_(rest[..., None, :]).add_(_no_future(L)).exp_()
    y = ((C @ B.mT)[:, :, None] * L) @ value  # (b, g, i, q, p)

    # From and to the chunks around: the heads of a group stand side by side as columns of one matrix.
    grouped = rearrange(state, "b (g i) p n -> b g n (i p)", g=groups)
    from_before = rearrange(C @ grouped, "b g q (i p) -> b g i q p", i=dt.shape[2])
    y = y + torch.exp(log_decay)[..., None] * from_before
    to_end = torch.exp(log_decay[..., -1:] - log_decay + (rest[..., -1:] - rest))  # (b, g, i, q)
    value = rearrange(value * to_end[..., None], "b g i q p -> b g (i p) q")
    written = rearrange(value @ B, "b g (i p) n -> b (g i) p n", i=dt.shape[2])
    kept = rearrange(torch.exp(log_decay[..., -1]), "b g i -> b (g i) 1 1")
    return rearrange(y, "b g i q p -> b q (g i) p").to(x.dtype), kept * state + written


def _running_sum(x: Tensor) -> tuple[Tensor, Tensor]:
    """The cumulative sum along the last axis, rounded, and what rounding took off it (a constant to autograd).

    Decays inside a chunk come from differences of two sums, each much larger than the difference can be: rounding them
    first would cost two digits where decays are strong (A = -16, dt = 2, chunk 64: 2e-5 instead of 1e-7).
    """
    wider = x.dtype if x.device.type == "mps" else torch.float64  # that device has no float64
    exact = torch.cumsum(x.to(wider), dim=-1)
    rounded = exact.to(x.dtype)
    return rounded, (exact.detach() - rounded.detach().to(wider)).to(x.dtype)


def _no_future(table: Tensor) -> Tensor:
    """(q, q): 0 on and below the diagonal, -inf above, whose exponential is 0."""
    return torch.full(table.shape[-2:], -torch.inf, dtype=table.dtype, device=table.device).triu(1)


def start_state(x: Tensor, B: Tensor, state: Tensor | None) -> Tensor:
    """The state to begin from, (b, h, p, n), in float32 or wider."""
    wide = torch.promote_types(x.dtype, torch.float32)
    b, _, h, p = x.shape
    return x.new_zeros(b, h, p, B.shape[-1], dtype=wide) if state is None else state.to(wide)


def _read(state: Tensor, C: Tensor) -> Tensor:
    """y = state C per head. state: (b, h, p, n); C: (b, g, n)."""
    grouped = rearrange(state, "b (g i) p n -> b g i p n", g=C.shape[1])
    return rearrange(einsum(grouped, C.to(state.dtype), "b g i p n, b g n -> b g i p"), "b g i p -> b (g i) p")


def edit_latest(edit: Callable[[Tensor], Tensor], past: list[Tensor], state: Tensor, length: int) -> Tensor:
    """Show `edit` the states so far in a tensor of full length and take back the latest: how an edit propagates."""
    so_far = torch.stack([*past, state, *[torch.zeros_like(state)] * (length - len(past) - 1)], dim=1)
    return edit(so_far)[:, len(past)]
