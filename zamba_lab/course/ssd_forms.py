"""Lesson 4: the SSM of Mamba-2 as a recurrence, as masked attention, in chunks, and token by token."""

import torch
from torch import Tensor

from zamba_lab.course.exercises import Exercise, Mistake
from zamba_lab.course.inputs import draw, steps
from zamba_lab.course.ssd_cost import MULTIPLICATIONS
from zamba_lab.ops.ssd import ssd_chunked

# --- solutions, as a learner reads them ----------------------------------------------------------------------------


def decay_mask(a):
    """How much of what was written at s is left at t.

    a: (l,), a[t] = dt[t] * A, the logarithm of the decay at t; < 0.
    Returns L: (l, l). L[t, s] = exp(a[s+1] + ... + a[t]) for s <= t, which is 1 on the diagonal; 0 for s > t.
    """
    total = torch.cumsum(a, dim=0)
    return torch.exp(total[:, None] - total[None, :]).tril()


def as_attention(x, dt, A, B, C):
    """The SSM as masked attention without a softmax: y = (L * C B^T) (dt x).

    x: (l, p). dt: (l,). A: a number, < 0. B, C: (l, n).
    Returns y: (l, p).
    """
    L = decay_mask(dt * A)
    return (L * (C @ B.T)) @ (dt[:, None] * x)


def chunk(x, dt, A, B, C, state):
    """One chunk of q tokens that starts from a state: attention inside it, and what the tokens before it left.

    x: (q, p). dt: (q,). A: a number, < 0. B, C: (q, n). state: (p, n), as it was before the chunk's first token.
    Returns y: (q, p), and the state after the chunk: (p, n).
    """
    total = torch.cumsum(dt * A, dim=0)  # log of the decay from before the chunk to each token
    u = dt[:, None] * x
    within = as_attention(x, dt, A, B, C)
    before = torch.exp(total)[:, None] * (C @ state.T)
    left = torch.exp(total[-1] - total)[:, None] * u  # what is left of each token at the end
    state = torch.exp(total[-1]) * state + left.T @ B
    return within + before, state


def in_chunks(x, dt, A, B, C, chunk_size):
    """The whole text, chunk by chunk, from a state of zeros; the last chunk may be shorter.

    x: (l, p). dt: (l,). A: a number, < 0. B, C: (l, n). chunk_size: at least 1.
    Returns y: (l, p), and the state after the last token: (p, n).
    """
    state = x.new_zeros(x.shape[1], B.shape[1])
    y = []
    for i in range(0, len(x), chunk_size):
        now = slice(i, i + chunk_size)
        y_now, state = chunk(x[now], dt[now], A, B[now], C[now], state)
        y.append(y_now)
    return torch.cat(y), state


# --- for the lesson --------------------------------------------------------------------------------------------------


def library_chunks(x: Tensor, dt: Tensor, A: float, B: Tensor, C: Tensor, chunk_size: int) -> tuple[Tensor, Tensor]:
    """`ops.ssd.ssd_chunked` for one text and one head, with the arguments and results of `in_chunks`."""
    y, state = ssd_chunked(x[None, :, None], dt[None, :, None], x.new_tensor([A]), B[None, :, None], C[None, :, None], None, chunk_size)
    return y[0, :, 0], state[0, 0]


# --- mistakes ------------------------------------------------------------------------------------------------------


def mask_with(a: Tensor, more: Tensor | float = 0.0) -> Tensor:
    total = torch.cumsum(a, dim=0)
    return torch.exp(total[:, None] - total[None, :] + more)


def attention_with(weights: Tensor, x: Tensor, dt: Tensor) -> Tensor:
    return weights @ (dt[:, None] * x)


def one_chunk(x, dt, A, B, C, state, fade="right", end="right", carried=True):
    """A chunk with one of its decays wrong. fade: of the old state at each token. end: of each token at the end of the chunk."""
    total = torch.cumsum(dt * A, dim=0)
    fades = {"right": total, "none": 0 * total, "whole": total[-1].expand_as(total), "late": total - dt * A}
    y = as_attention(x, dt, A, B, C) + torch.exp(fades[fade])[:, None] * (C @ state.T)
    ends = {"right": total[-1] - total, "none": 0 * total, "from the start": total}
    own = (torch.exp(ends[end])[:, None] * dt[:, None] * x).T @ B
    return y, (torch.exp(total[-1]) * state if carried else 0) + own


def chunks_with(x, dt, A, B, C, chunk_size, restart=False, **wrong):
    state, ys = x.new_zeros(x.shape[1], B.shape[1]), []
    for now in torch.arange(len(x)).split(chunk_size):
        y, state = one_chunk(x[now], dt[now], A, B[now], C[now], 0 * state if restart else state, **wrong)
        ys.append(y)
    return torch.cat(ys), state


def text(l: int, p: int, n: int, A: float) -> tuple:
    x, B, C = draw(l, (l, p), (l, n), (l, n))
    return x, steps(l, l), A, B, C


DECAY_MASK = Exercise(
    number="4.1",
    title="the decaying mask",
    level="easy",
    minutes=10,
    solution=decay_mask,
    cases=lambda: [(-steps(3, 7),), (-0.3 * steps(4, 37),)],
    mistakes=(
        Mistake(
            "The decay of the written token itself is included",
            "What is written at s has not decayed at s. The sum begins with a[s+1], so that the diagonal is 1.",
            lambda a: mask_with(a, a[None, :]).tril(),
        ),
        Mistake(
            "The decay of the reading token is missing",
            "At t the old state decays before it is read, so a[t] belongs to the sum.",
            lambda a: mask_with(a, -a[:, None]).tril(),
        ),
        Mistake(
            "The future is not masked", "For s > t the entry is 0: a token cannot be read before it is written.", lambda a: mask_with(a)
        ),
        Mistake(
            "The matrix is transposed",
            "Row t reads, column s was written: the entries with s <= t lie below the diagonal.",
            lambda a: mask_with(a).tril().T,
        ),
        Mistake(
            "The exponential is missing",
            "Sums of a are logarithms of decays. Take exp of them, before you mask.",
            lambda a: mask_with(a).log().tril(),
        ),
    ),
    hints=(
        "A sum over a stretch is the difference of two running sums: `torch.cumsum(a, dim=0)`.",
        "With `total = torch.cumsum(a, dim=0)`, a[s+1] + ... + a[t] is total[t] - total[s]. Make the table by `[:, None]` and "
        "`[None, :]`; exp; `.tril()`.",
    ),
)

AS_ATTENTION = Exercise(
    number="4.2",
    title="the SSM as attention",
    level="medium",
    minutes=10,
    solution=as_attention,
    cases=lambda: [text(11, 3, 5, -1.0), text(37, 5, 2, -0.3)],
    mistakes=(
        Mistake(
            "The values lack the step size",
            "The value of a token is dt * x: a token with a small step is written weakly.",
            lambda x, dt, A, B, C: (mask_with(dt * A).tril() * (C @ B.T)) @ x,
        ),
        Mistake(
            "B and C are swapped",
            "C is the query: row t of the table is about C[t]. The table is C @ B.T.",
            lambda x, dt, A, B, C: attention_with(mask_with(dt * A).tril() * (B @ C.T), x, dt),
        ),
        Mistake(
            "There is no softmax here",
            "The weights are L * C B^T as they are; they may be negative and need not add up to 1. That is what makes a recurrence "
            "possible.",
            lambda x, dt, A, B, C: attention_with(
                mask_with(dt * A).tril() * (C @ B.T).masked_fill(mask_with(dt * A).tril() == 0, -torch.inf).softmax(-1), x, dt
            ),
        ),
        Mistake(
            "Nothing decays",
            "This is linear attention, with a mask of ones. Multiply by L of exercise 4.1, with a = dt * A.",
            lambda x, dt, A, B, C: attention_with((C @ B.T).tril(), x, dt),
        ),
        Mistake(
            "The mask is missing",
            "C B^T has entries above the diagonal: those are tokens yet to come. Multiply by L.",
            lambda x, dt, A, B, C: attention_with(C @ B.T, x, dt),
        ),
    ),
    hints=(
        "The table has a row for each token that reads and a column for each that was written: which of B and C belongs to the rows?",
        "`L = decay_mask(dt * A)`, the table is `L * (C @ B.T)`, the values are `dt[:, None] * x`.",
    ),
)

CHUNK = Exercise(
    number="4.3",
    title="a chunk that starts from a state",
    level="hard",
    minutes=20,
    solution=chunk,
    cases=lambda: [(*text(7, 3, 5, -1.0), *draw(1, (3, 5))), (*text(5, 4, 2, -0.3), *draw(2, (4, 2)))],
    mistakes=(
        Mistake(
            "The chunk's last state is missing its decay",
            "What token s wrote has decayed from s to the end of the chunk: multiply it by exp(a[s+1] + ... + a[q-1]), the last row of L.",
            lambda *arguments: one_chunk(*arguments, end="none"),
        ),
        Mistake(
            "In the last state the tokens decay from the chunk's start",
            "exp(total[s]) is the decay from before the chunk to s. Needed is the decay from s to the end: exp(total[-1] - total[s]).",
            lambda *arguments: one_chunk(*arguments, end="from the start"),
        ),
        Mistake(
            "The old state does not decay inside the chunk",
            "At token t of the chunk the state from before has decayed by exp(a[0] + ... + a[t]).",
            lambda *arguments: one_chunk(*arguments, fade="none"),
        ),
        Mistake(
            "The old state has decayed to the chunk's end already",
            "Every token reads the old state as if it were the last one. At token t it has decayed by exp(total[t]), not exp(total[-1]).",
            lambda *arguments: one_chunk(*arguments, fade="whole"),
        ),
        Mistake(
            "The old state's decay is one token late",
            "The first token of the chunk already lets the old state decay once: the sum runs up to and including a[t].",
            lambda *arguments: one_chunk(*arguments, fade="late"),
        ),
        Mistake(
            "The old state is not handed on",
            "The state after the chunk is the old one, decayed over the whole chunk, plus the chunk's own.",
            lambda *arguments: one_chunk(*arguments, carried=False),
        ),
    ),
    hints=(
        "Everything is linear, so treat two sources apart: the tokens of the chunk, as if the state had been 0; and the old state, "
        "as if the tokens had been 0. Add them.",
        "`total = torch.cumsum(dt * A, dim=0)`. The old state gives `exp(total)[:, None] * (C @ state.T)` to y and `exp(total[-1]) * "
        "state` to the new state. Token s has "
        "`exp(total[-1] - total[s])` left at the end.",
    ),
)

IN_CHUNKS = Exercise(
    number="4.4",
    title="chunk by chunk",
    level="medium",
    minutes=10,
    solution=in_chunks,
    cases=lambda: [(*text(37, 3, 5, -1.0), 7), (*text(37, 3, 5, -0.2), 1), (*text(11, 2, 3, -0.3), 64)],
    mistakes=(
        Mistake(
            "Every chunk starts from zero",
            "Hand the state that a chunk returns to the next one.",
            lambda *arguments: chunks_with(*arguments, restart=True),
        ),
        Mistake(
            "The chunk's last state is missing its decay",
            "See exercise 4.3: what token s wrote has decayed from s to the end of its chunk.",
            lambda *arguments: chunks_with(*arguments, end="none"),
        ),
        Mistake(
            "The old state does not decay inside the chunk",
            "See exercise 4.3: at token t of a chunk the state from before has decayed by exp(total[t]).",
            lambda *arguments: chunks_with(*arguments, fade="none"),
        ),
        Mistake(
            "Only the chunk just before is remembered",
            "A chunk must hand on the state that it got, decayed, besides its own.",
            lambda *arguments: chunks_with(*arguments, carried=False),
        ),
    ),
    hints=(
        "A loop over the first positions of chunks: `range(0, len(x), chunk_size)`. A slice may reach beyond the end.",
        "`y_now, state = chunk(x[i:i+chunk_size], dt[i:i+chunk_size], A, ...)`, and `torch.cat` at the end.",
    ),
)

EXERCISES = (DECAY_MASK, AS_ATTENTION, CHUNK, IN_CHUNKS, MULTIPLICATIONS)
