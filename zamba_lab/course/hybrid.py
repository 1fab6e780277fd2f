"""Lesson 1: what a hybrid is, by taking one apart."""

import torch
from torch import Tensor

from zamba_lab.course.exercises import Exercise, Mistake
from zamba_lab.course.inputs import draw

# --- solutions, as a learner reads them ----------------------------------------------------------------------------


def calls(hybrid_layers, n_shared_blocks):
    """Which shared block runs at which depth? The blocks take turns: the first, the second, ..., and the first again.

    hybrid_layers: the depths at which a shared block runs, such as [2, 5, 7]. n_shared_blocks: how many blocks there are.
    Returns a list of pairs (depth, block), blocks counted from 0.
    """
    return [(depth, k % n_shared_blocks) for k, depth in enumerate(hybrid_layers)]


def shared_parameters(block, own, invocations, n_shared_blocks):
    """How many parameters do the shared blocks need, with all that belongs to them?

    block: parameters of one block. own: of what each invocation has for itself (its link, its adapter).
    invocations: how often a shared block runs down the depth. n_shared_blocks: how many blocks there are.
    Returns a number.
    """
    return n_shared_blocks * block + invocations * own


def hybrid_layer(x, x0, norm, mixer, block, link):
    """One hybrid layer of Zamba2.

    The shared block reads the stream and the token embeddings side by side, in this order. What it says goes through
    the link and is added to the stream; that sum, normed, is what the mixer reads. Only what the mixer says is added to
    the stream itself.

    x: (l, d) the stream. x0: (l, d) the token embeddings.
    norm, mixer, link: functions from (l, d) to (l, d). block: a function from (l, 2d) to (l, d).
    Returns the stream after the layer: (l, d).
    """
    t = link(block(torch.cat([x, x0], dim=-1)))
    return x + mixer(norm(x + t))


# --- mistakes ------------------------------------------------------------------------------------------------------


def parts(seed: int, l: int, d: int) -> tuple:
    """A stream, embeddings, and four functions between them, each recognisable by what it does."""
    x, x0, into, through = draw(seed, (l, d), (l, d), (2 * d, d), (d, d))

    def norm(z: Tensor) -> Tensor:
        return z / z.square().mean(-1, keepdim=True).sqrt()

    return x, x0, norm, lambda z: z.cumsum(0).tanh(), lambda z: (z @ into).tanh(), lambda z: z @ through


CALLS = Exercise(
    number="1.1",
    title="who is called where?",
    level="easy",
    minutes=5,
    solution=calls,
    cases=lambda: [([2, 5, 7, 11, 12], 2), ([1, 2, 3, 4, 5, 6, 9], 3)],
    mistakes=(
        Mistake(
            "The block follows the depth, not the invocation",
            "Blocks take turns by how often one has been called, whatever the depth. Count the invocations.",
            lambda hybrid_layers, n: [(depth, depth % n) for depth in hybrid_layers],
        ),
        Mistake(
            "The blocks do not take turns",
            "This gives the first block the upper part of the depth and the last one the lower: AABB. They alternate: ABAB.",
            lambda hybrid_layers, n: [(depth, k * n // len(hybrid_layers)) for k, depth in enumerate(hybrid_layers)],
        ),
        Mistake(
            "The turns begin with the second block",
            "The first invocation is of block 0.",
            lambda hybrid_layers, n: [(depth, (k + 1) % n) for k, depth in enumerate(hybrid_layers)],
        ),
        Mistake(
            "Only one block is ever called",
            "There are n_shared_blocks of them, and they take turns.",
            lambda hybrid_layers, n: [(depth, 0) for depth in hybrid_layers],
        ),
    ),
    hints=(
        "`enumerate(hybrid_layers)` counts the invocations while it goes down the depth.",
        "Invocation k is of block `k % n_shared_blocks`.",
    ),
)

SHARED_PARAMETERS = Exercise(
    number="1.2",
    title="what sharing saves",
    level="easy",
    minutes=5,
    solution=shared_parameters,
    cases=lambda: [(1000, 7, 9, 2), (36, 5, 13, 1)],
    mistakes=(
        Mistake(
            "Nothing is shared",
            "A block is there once for all its invocations. Only what belongs to an invocation is there for each.",
            lambda block, own, invocations, n: invocations * (block + own),
        ),
        Mistake(
            "Links and adapters are shared, too",
            "Every invocation has a link and an adapter of its own: count `own` once for each invocation.",
            lambda block, own, invocations, n: n * (block + own),
        ),
        Mistake("Links and adapters are missing", "Add `own` for each invocation.", lambda block, own, invocations, n: n * block),
        Mistake(
            "There may be more than one block",
            "Count `block` once for each of n_shared_blocks.",
            lambda block, own, invocations, n: block + invocations * own if n > 1 else n * block + invocations * own,
        ),
    ),
    hints=(
        "What is there once for each block, and what once for each invocation?",
        "n_shared_blocks times `block`, and invocations times `own`.",
    ),
)

HYBRID_LAYER = Exercise(
    number="1.3",
    title="one hybrid layer",
    level="medium",
    minutes=15,
    solution=hybrid_layer,
    cases=lambda: [parts(1, 7, 4), parts(2, 5, 6)],
    mistakes=(
        Mistake(
            "The block's output is added to the stream",
            "That is how a transformer does it. Here it enters the mixer's input only: the stream gets what the mixer says, and "
            "nothing else.",
            lambda x, x0, norm, mixer, block, link: (
                x + link(block(torch.cat([x, x0], -1))) + mixer(norm(x + link(block(torch.cat([x, x0], -1)))))
            ),
        ),
        Mistake(
            "Stream and embeddings are in the wrong order",
            "The block's weights know the stream in the first half of its input and the embeddings in the second: [x, x0].",
            lambda x, x0, norm, mixer, block, link: x + mixer(norm(x + link(block(torch.cat([x0, x], -1))))),
        ),
        Mistake(
            "The link is missing",
            "What the block says passes the invocation's own link first: link(block(...)).",
            lambda x, x0, norm, mixer, block, link: x + mixer(norm(x + block(torch.cat([x, x0], -1)))),
        ),
        Mistake(
            "The norm comes too early",
            "First add what the block says to the stream, then norm the sum.",
            lambda x, x0, norm, mixer, block, link: x + mixer(norm(x) + link(block(torch.cat([x, x0], -1)))),
        ),
        Mistake(
            "The stream is not carried on",
            "The layer adds to the stream: the result is x + what the mixer says.",
            lambda x, x0, norm, mixer, block, link: mixer(norm(x + link(block(torch.cat([x, x0], -1))))),
        ),
    ),
    hints=(
        "Write it in two lines: what the block says, after its link; then the layer. `torch.cat([a, b], dim=-1)` puts two tensors "
        "side by side.",
        "`t = link(block(torch.cat([x, x0], dim=-1)))`. The mixer reads `norm(x + t)`, and the stream becomes x plus what the mixer says.",
    ),
)

EXERCISES = (CALLS, SHARED_PARAMETERS, HYBRID_LAYER)
