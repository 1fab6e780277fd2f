"""Lesson 2: a linear recurrence by hand."""

import math

import torch
from torch import Tensor

from zamba_lab.course.exercises import Exercise, Mistake
from zamba_lab.course.inputs import draw

# --- solutions, as a learner reads them ----------------------------------------------------------------------------


def recurrence(x, decay, B, C):
    """Write, decay, read: one number comes in and one goes out at each position.

    x: (l,) inputs. decay: (n,), between 0 and 1. B, C: (n,).
    Returns y: (l,), and states: (l, n), the state after each position. The state is zero before the first.
    """
    state = torch.zeros_like(B)
    y, states = [], []
    for t in range(len(x)):
        state = decay * state + B * x[t]
        y.append(C @ state)
        states.append(state)
    return torch.stack(y), torch.stack(states)


def half_life(A, dt):
    """After how many positions is half of a written value left?

    A: a rate, < 0. dt: the step size, > 0. Each position multiplies the state by exp(dt * A).
    Returns a number of positions, which need not be whole.
    """
    return math.log(2) / (-A * dt)


def discretise(A, dt):
    """The exact step of ds/du = A s + x over a time dt in which the input x stays as it is.

    A: (n,) rates, < 0. dt: a number, > 0.
    Returns decay: (n,) and write: (n,), such that s_new = decay * s_old + write * x.
    """
    decay = torch.exp(dt * A)
    write = (decay - 1) / A
    return decay, write


def unrolled(decay, B, C, l):
    """The recurrence as one matrix: y = M x.

    decay: (n,), between 0 and 1. B, C: (n,). l: the number of positions.
    Returns M: (l, l); row t says how much of each x[s] is in y[t].
    """
    t = torch.arange(l)
    distance = (t[:, None] - t[None, :]).clamp(min=0)
    M = (C * B * decay ** distance[:, :, None]).sum(-1)
    return M.tril()


# --- mistakes ------------------------------------------------------------------------------------------------------


def walk(x: Tensor, decay: Tensor | float, B: Tensor, C: Tensor, late_decay=False, early_read=False, carried=True) -> tuple[Tensor, Tensor]:
    """The recurrence with one of its steps in the wrong place."""
    state, y, states = torch.zeros_like(B), [], []
    for x_t in x:
        before = state if carried else torch.zeros_like(B)
        state = decay * (before + B * x_t) if late_decay else decay * before + B * x_t
        y.append(C @ (before if early_read else state))
        states.append(state)
    return torch.stack(y), torch.stack(states)


def powers(decay: Tensor, B: Tensor, C: Tensor, l: int, more: int = 0, keep: str = "lower") -> Tensor:
    """The sum of C B decay^(t - s + more) over the components, at s <= t or elsewhere."""
    t = torch.arange(l, dtype=B.dtype)
    M = (C * B * decay ** (t[:, None] - t[None, :] + more)[:, :, None]).sum(-1)
    return {"lower": M.tril(), "strictly lower": M.tril(-1), "upper": M.tril().T, "all": M}[keep]


RECURRENCE = Exercise(
    number="2.1",
    title="write, decay, read",
    level="easy",
    minutes=10,
    solution=recurrence,
    cases=lambda: [(x, decay.sigmoid(), B, C) for l, n in ((11, 3), (37, 5)) for x, decay, B, C in (draw(l, (l,), (n,), (n,), (n,)),)],
    mistakes=(
        Mistake(
            "The decay is applied after the write",
            "Then the newest value has already faded when it is read. Decay what was there before, and add `B * x[t]` undiminished.",
            lambda x, decay, B, C: walk(x, decay, B, C, late_decay=True),
        ),
        Mistake(
            "You read before you wrote",
            "y[t] must see x[t]: it is read from the state after position t, not from the one before.",
            lambda x, decay, B, C: walk(x, decay, B, C, early_read=True),
        ),
        Mistake(
            "B and C are swapped",
            "B says along which direction a value is written, C along which direction the state is read. y is the same either way, as "
            "every product is there in both, but the states are not.",
            lambda x, decay, B, C: walk(x, decay, C, B),
        ),
        Mistake(
            "Nothing decays",
            "The state is a plain sum of all that was written. Multiply the old state by `decay` at every position.",
            lambda x, decay, B, C: walk(x, 1.0, B, C),
        ),
        Mistake(
            "The state is not carried on",
            "Each position starts from zero, so nothing is remembered. Create the state once, before the loop.",
            lambda x, decay, B, C: walk(x, decay, B, C, carried=False),
        ),
    ),
    hints=(
        "Keep one variable `state` of B's shape, zero at first. In each pass of a loop over t it is replaced by a new one. Which two "
        "terms does the "
        "equation add?",
        "`state = decay * state + B * x[t]`, and only then `C @ state`. Collect both in lists; `torch.stack` makes a tensor of each list.",
    ),
)

HALF_LIFE = Exercise(
    number="2.2",
    title="how long is a memory?",
    level="easy",
    minutes=5,
    solution=half_life,
    cases=lambda: [(-1.0, 0.1), (-0.37, 0.05), (-16.0, 0.013)],
    mistakes=(
        Mistake(
            "This is the time to 1/e, not to one half",
            "After 1 / (-A dt) positions 37 % are left. Half is reached earlier: solve exp(k dt A) = 1/2 for k.",
            lambda A, dt: 1 / (-A * dt),
        ),
        Mistake(
            "The sign is wrong",
            "A is negative, so log(2) / (A dt) is a negative number of positions.",
            lambda A, dt: math.log(2) / (A * dt),
        ),
        Mistake(
            "The step size is missing",
            "log(2) / -A is a time; a position takes the time dt, so divide by it to have positions.",
            lambda A, dt: math.log(2) / -A,
        ),
        Mistake(
            "The step size is on the wrong side",
            "Larger steps forget faster: a half-life in positions falls as dt grows. Divide by dt, do not multiply.",
            lambda A, dt: math.log(2) * dt / -A,
        ),
    ),
    hints=(
        "After k positions, exp(dt A) has been applied k times. What is left of 1?",
        "Solve exp(k dt A) = 1/2: take the logarithm of both sides. `math.log` is the natural logarithm.",
    ),
)

DISCRETISE = Exercise(
    number="2.3",
    title="from a rate to a step",
    level="medium",
    minutes=10,
    solution=discretise,
    cases=lambda: [(-draw(3, (n,))[0].abs() - 0.1, dt) for n, dt in ((5, 0.7), (3, 0.05))],
    mistakes=(
        Mistake(
            "This is Euler's step, not the exact one",
            "1 + dt A and dt are what the exact expressions become for a very small dt. For a large one 1 + dt A turns negative, and "
            "the memory rings.",
            lambda A, dt: (1 + dt * A, torch.full_like(A, dt)),
        ),
        Mistake(
            "This is Mamba's short form of the write",
            "Mamba takes dt for the write and the exact decay. Here the exact one is asked for: what the input adds decays, too, "
            "while it comes in.",
            lambda A, dt: (torch.exp(dt * A), torch.full_like(A, dt)),
        ),
        Mistake(
            "The write is not divided by A",
            "exp(dt A) - 1 is negative, so it would write with the wrong sign. The integral of exp(A u) brings a factor 1 / A.",
            lambda A, dt: (torch.exp(dt * A), torch.exp(dt * A) - 1),
        ),
        Mistake(
            "The write has the wrong sign",
            "A is negative: (1 - exp(dt A)) / A is negative, and a positive input must be written positively.",
            lambda A, dt: (torch.exp(dt * A), (1 - torch.exp(dt * A)) / A),
        ),
    ),
    hints=(
        "Without input, s(dt) = exp(dt A) s(0): that is the decay. With s(0) = 0 and x = 1, what is s(dt)?",
        "What was added at time u has decayed for dt - u. Integrate exp(A (dt - u)) over u from 0 to dt: (exp(dt A) - 1) / A.",
    ),
)

UNROLLED = Exercise(
    number="2.4",
    title="the whole recurrence as one matrix",
    level="medium",
    minutes=10,
    solution=unrolled,
    cases=lambda: [(decay.sigmoid(), B, C, l) for l, n in ((7, 3), (11, 5)) for decay, B, C in (draw(l, (n,), (n,), (n,)),)],
    mistakes=(
        Mistake(
            "The future is not masked",
            "Above the diagonal s > t: y[t] cannot contain what is written later, and decay^(t - s) would grow. Those entries are 0.",
            lambda decay, B, C, l: powers(decay, B, C, l, keep="all"),
        ),
        Mistake(
            "The matrix is transposed",
            "Row t is the position that reads, column s the one that was written. Entries with s <= t lie below the diagonal.",
            lambda decay, B, C, l: powers(decay, B, C, l, keep="upper"),
        ),
        Mistake(
            "The diagonal is missing",
            "y[t] sees x[t] itself: at s = t the entry is the sum of C * B.",
            lambda decay, B, C, l: powers(decay, B, C, l, keep="strictly lower"),
        ),
        Mistake(
            "One decay too many",
            "A value read at its own position has not decayed: the exponent is t - s, 0 on the diagonal.",
            lambda decay, B, C, l: powers(decay, B, C, l, more=1),
        ),
    ),
    hints=(
        "Write component n of the state at t out as a sum over all s <= t. How often has what was written at s been multiplied by "
        "decay[n]?",
        "M[t, s] is the sum over n of C[n] B[n] decay[n]^(t - s), for s <= t. `torch.arange(l)[:, None] - torch.arange(l)[None, :]` "
        "has all t - s; "
        "with `[:, :, None]` behind it, `decay ** ...` is (l, l, n). `.tril()` makes everything above the diagonal 0.",
    ),
)

EXERCISES = (RECURRENCE, HALF_LIFE, DISCRETISE, UNROLLED)
