"""Lesson 3: selection. Step size, write and read depend on the token."""

import torch
from torch import Tensor

from zamba_lab.course.exercises import Exercise, Mistake
from zamba_lab.course.inputs import draw, steps
from zamba_lab.ops.scan import scan_recurrence

# --- solutions, as a learner reads them ----------------------------------------------------------------------------


def step_size(raw, bias):
    """A step size that is always positive: softplus(raw + bias), with softplus(z) = log(1 + exp(z)).

    raw: (l, p), what a linear map makes of the tokens. bias: (p,), learnt.
    Returns dt: (l, p), > 0.
    """
    return torch.log(1 + torch.exp(raw + bias))


def latch(marked):
    """Choose step sizes and writes so that a memory with A = -1 holds the last marked value, and nothing else.

    state = exp(-dt[t]) * state + dt[t] * B[t] * x[t], and the output is the state itself.
    marked: (l,) of True and False. marked[0] is True.
    Returns dt: (l,), >= 0, and B: (l,), both float64. They may depend on `marked` only, not on the values x.
    """
    dt = torch.where(marked, 40.0, 0.0).double()
    B = torch.full_like(dt, 1 / 40)
    return dt, B


def selective_step(x, dt, A, B, C, state):
    """One token of the selective scan: every channel has a step size, a row of rates and a row of the state.

    x, dt: (p,). A: (p, n) rates, < 0. B, C: (n,), shared by the channels. state: (p, n).
    Returns y: (p,), and the new state: (p, n). The write is dt * B * x, Mamba's short form.
    """
    decay = torch.exp(dt[:, None] * A)
    state = decay * state + (dt * x)[:, None] * B
    return state @ C, state


def scan(x, dt, A, B, C):
    """The selective scan over a text, from a state of zeros: each token has its own dt, B and C.

    x, dt: (l, p). A: (p, n), < 0. B, C: (l, n).
    Returns y: (l, p), and the state after the last token: (p, n).
    """
    state = torch.zeros_like(A)
    y = []
    for t in range(len(x)):
        decay = torch.exp(dt[t][:, None] * A)
        state = decay * state + (dt[t] * x[t])[:, None] * B[t]
        y.append(state @ C[t])
    return torch.stack(y), state


def library_scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
    """`ops.scan.scan_recurrence` for one text and one head, with the arguments and results of `scan`."""
    y, states = scan_recurrence(x[None, :, None], dt[None, :, None], A[None], B[None, :, None], C[None, :, None])
    return y[0, :, 0], states[0, -1, 0]


# --- mistakes ------------------------------------------------------------------------------------------------------


def step(x, dt, A, B, C, state, written=None, late_decay=False, early_read=False):
    """One token, with one thing wrong."""
    decay, write = torch.exp(dt[:, None] * A), ((dt * x) if written is None else written)[:, None] * B
    new = decay * (state + write) if late_decay else decay * state + write
    return (state if early_read else new) @ C, new


def walk(x, dt, A, B, C, carried=True, **wrong):
    """The scan, with one thing wrong."""
    state, y = torch.zeros_like(A), []
    for t in range(len(x)):
        y_t, state = step(x[t], dt[t], A, B[t], C[t], state if carried else torch.zeros_like(A), **wrong)
        y.append(y_t)
    return torch.stack(y), state


def held(returned: tuple[Tensor, Tensor], marked: Tensor) -> Tensor:
    """What a memory with these steps and writes puts out for values of a tenth's precision, rounded to it."""
    dt, B = returned
    x = (10 * draw(5, (len(marked),))[0]).round() / 10
    one = torch.ones(len(marked), 1, dtype=x.dtype)
    y, _ = walk(x[:, None], dt.double()[:, None], -one[:1], B.double()[:, None], one)
    return y.round(decimals=2)


def one_token() -> list[tuple]:
    found = []
    for p, n in ((3, 5), (7, 2)):
        x, A, B, C, state = draw(p, (p,), (p, n), (n,), (n,), (p, n))
        found.append((x, steps(p, p), -A.abs() - 0.1, B, C, state))
    return found


def one_text() -> list[tuple]:
    return [
        (x, steps(l, l, p), -A.abs() - 0.1, B, C)
        for l, p, n in ((11, 3, 5), (37, 2, 3))
        for x, A, B, C in (draw(l, (l, p), (p, n), (l, n), (l, n)),)
    ]


STEP_SIZE = Exercise(
    number="3.1",
    title="a step that is always positive",
    level="easy",
    minutes=5,
    solution=step_size,
    cases=lambda: [tuple(draw(1, (7, 3), (3,))), tuple(draw(2, (1, 5), (5,)))],
    mistakes=(
        Mistake(
            "This is ReLU, not softplus",
            "ReLU has steps of exactly 0 and no gradient there: a token that is skipped once could never be learnt to be read.",
            lambda raw, bias: (raw + bias).relu(),
        ),
        Mistake(
            "The exponential alone grows too fast",
            "exp(z) is positive, too, but softplus(z) approaches z for large z, so that a step cannot explode. Take log(1 + exp(z)).",
            lambda raw, bias: (raw + bias).exp(),
        ),
        Mistake(
            "The bias is added after the softplus",
            "Then a negative bias can make the step negative, and the state would grow. Add it inside.",
            lambda raw, bias: torch.log(1 + raw.exp()) + bias,
        ),
        Mistake(
            "The bias is missing",
            "It sets the step size that a channel has for a token which says nothing: the channel's own time scale.",
            lambda raw, bias: torch.log(1 + raw.exp()),
        ),
    ),
    hints=(
        "First add, then apply softplus to the sum; shapes (l, p) and (p,) broadcast.",
        "`torch.nn.functional.softplus(raw + bias)`, or write out log(1 + exp(...)).",
    ),
)

LATCH = Exercise(
    number="3.2",
    title="hold the marked value",
    level="medium",
    minutes=10,
    solution=latch,
    cases=lambda: [(torch.tensor([place in marks for place in range(l)]),) for l, marks in ((11, (0, 3, 5, 6)), (7, (0,)))],
    outcome=held,
    mistakes=(
        Mistake(
            "The memory takes every token",
            "The step is large everywhere, so each token replaces the one before. At tokens without a mark the state must stay: "
            "which step leaves it as it was?",
            lambda marked: (torch.full(marked.shape, 40.0, dtype=torch.float64), torch.full(marked.shape, 1 / 40, dtype=torch.float64)),
        ),
        Mistake(
            "It holds the tokens without a mark",
            "The two steps are the wrong way round: large where `marked` is True, 0 elsewhere.",
            lambda marked: latch(~marked),
        ),
        Mistake(
            "The old value is not forgotten",
            "A step of 1 leaves exp(-1), 37 %, of the old value in the state. A larger step leaves less; then make up for it in B.",
            lambda marked: (marked.double(), torch.ones(marked.shape, dtype=torch.float64)),
        ),
        Mistake(
            "The value comes out too large",
            "What is written is dt * B * x. With a large dt, B has to be 1 / dt, so that x itself goes in.",
            lambda marked: (40.0 * marked.double(), torch.ones(marked.shape, dtype=torch.float64)),
        ),
    ),
    hints=(
        "Two questions, one for each kind of token. Which dt leaves the state exactly as it was? Which dt leaves nothing of it?",
        "dt = 0 keeps everything and writes nothing. dt = 40 leaves exp(-40) of the old; with B = 1/40 the write is x.",
    ),
)

SELECTIVE_STEP = Exercise(
    number="3.3",
    title="one token of the selective scan",
    level="medium",
    minutes=10,
    solution=selective_step,
    cases=one_token,
    mistakes=(
        Mistake(
            "The step size is missing from the write",
            "A token with a small step must be written weakly: the write is dt * x * B.",
            lambda x, dt, A, B, C, state: step(x, dt, A, B, C, state, written=x),
        ),
        Mistake(
            "The step size is missing from the decay",
            "exp(A) is the same for every token. Selection needs exp(dt * A), so that a token decides how much is forgotten.",
            lambda x, dt, A, B, C, state: step(x, torch.ones_like(dt), A, B, C, state, written=dt * x),
        ),
        Mistake(
            "The state grows instead of decaying",
            "A is negative already: exp(-dt * A) is larger than 1.",
            lambda x, dt, A, B, C, state: step(x, dt, -A, B, C, state),
        ),
        Mistake(
            "The decay is applied after the write",
            "Then the new token fades before it is read. Only the old state decays.",
            lambda x, dt, A, B, C, state: step(x, dt, A, B, C, state, late_decay=True),
        ),
        Mistake(
            "You read before you wrote",
            "y is read from the new state.",
            lambda x, dt, A, B, C, state: step(x, dt, A, B, C, state, early_read=True),
        ),
        Mistake(
            "B and C are swapped",
            "B says where the token is written among the n components, C where it is read.",
            lambda x, dt, A, B, C, state: step(x, dt, A, C, B, state),
        ),
    ),
    hints=(
        "What has two axes? The state and A are (p, n); x and dt have the first of these axes, B and C the second. `dt[:, None]` "
        "gives dt a second axis.",
        "`decay = torch.exp(dt[:, None] * A)`; the write is `(dt * x)[:, None] * B`; `state @ C` sums over n.",
    ),
)

SCAN = Exercise(
    number="3.4",
    title="the selective scan",
    level="medium",
    minutes=10,
    solution=scan,
    cases=one_text,
    mistakes=(
        Mistake(
            "Every token has the first token's B and C",
            "Then nothing is selected. Inside the loop use B[t] and C[t].",
            lambda x, dt, A, B, C: walk(x, dt, A, B[:1].expand_as(B), C[:1].expand_as(C)),
        ),
        Mistake(
            "Every token has the first token's step",
            "Inside the loop use dt[t]: that is how a token decides what is forgotten.",
            lambda x, dt, A, B, C: walk(x, dt[:1].expand_as(dt), A, B, C),
        ),
        Mistake(
            "All channels have one step",
            "dt[t] has p entries, one for each channel. Do not average over them.",
            lambda x, dt, A, B, C: walk(x, dt.mean(1, keepdim=True).expand_as(dt), A, B, C),
        ),
        Mistake(
            "The state is not carried on",
            "Each token starts from zeros. Create the state once, before the loop.",
            lambda x, dt, A, B, C: walk(x, dt, A, B, C, carried=False),
        ),
        Mistake(
            "You read before you wrote",
            "y[t] is read from the state after token t.",
            lambda x, dt, A, B, C: walk(x, dt, A, B, C, early_read=True),
        ),
        Mistake("B and C are swapped", "B[t] writes token t, C[t] reads the state at t.", lambda x, dt, A, B, C: walk(x, dt, A, C, B)),
    ),
    hints=(
        "It is exercise 3.3 in a loop over t, with one state that goes from token to token.",
        "Start with `torch.zeros_like(A)`; in the loop `y_t, state = selective_step(x[t], dt[t], A, B[t], C[t], state)`; at last "
        "`torch.stack`.",
    ),
)

EXERCISES = (STEP_SIZE, LATCH, SELECTIVE_STEP, SCAN)
