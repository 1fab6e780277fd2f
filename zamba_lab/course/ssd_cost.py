"""Lesson 4, its last part: what the chunked form costs."""

import time
from collections.abc import Sequence

import torch

from zamba_lab.course.exercises import Exercise, Mistake
from zamba_lab.course.inputs import draw, steps
from zamba_lab.ops.ssd import ssd_chunked


def multiplications(l, q, p, n):
    """Multiplications of the chunked form for one head, matrix products only. q divides l.

    l: tokens. q: tokens in a chunk. p: width of x. n: width of B and C.
    Returns the number for the whole text. A product of (a, b) and (b, c) takes a * b * c; what the mask hides is computed, too.
    """
    inside = q * q * n + q * q * p  # C B^T, and its product with the values
    outside = 2 * q * n * p  # reading the old state, writing the new one
    return l // q * (inside + outside)


def milliseconds(chunk_sizes: Sequence[int], l: int = 256, h: int = 8, p: int = 32, n: int = 32, repeats: int = 2) -> list[float]:
    """What the library's chunked form in plain PyTorch takes for l tokens, at each chunk size: the best of some repeats."""
    x, B, C = (part.float() for part in draw(0, (1, l, h, p), (1, l, 1, n), (1, l, 1, n)))
    dt, A = steps(0, 1, l, h).float(), -torch.ones(h)
    found = []
    for q in chunk_sizes:
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            ssd_chunked(x, dt, A, B, C, None, q)
            times.append(1e3 * (time.perf_counter() - start))
        found.append(min(times))
    return found


MULTIPLICATIONS = Exercise(
    number="4.5",
    title="what it costs",
    level="medium",
    minutes=10,
    solution=multiplications,
    cases=lambda: [(1024, 64, 64, 128), (60, 5, 3, 7), (35, 35, 2, 3)],
    mistakes=(
        Mistake("This is the cost of one chunk", "There are l / q chunks.", lambda l, q, p, n: q * q * (n + p) + 2 * q * n * p),
        Mistake(
            "The state's products are missing",
            "Each chunk reads the old state, (q, n) times (n, p), and writes its own, (p, q) times (q, n).",
            lambda l, q, p, n: l // q * q * q * (n + p),
        ),
        Mistake(
            "The state is read but not written",
            "Besides reading the old state, (q, n) times (n, p), each chunk makes its own, (p, q) times (q, n).",
            lambda l, q, p, n: l // q * (q * q * (n + p) + q * n * p),
        ),
        Mistake(
            "The product with the values is missing",
            "C B^T is a (q, q) table; then it is multiplied by the values, (q, p).",
            lambda l, q, p, n: l // q * (q * q * n + 2 * q * n * p),
        ),
        Mistake(
            "This is attention over the whole text",
            "Inside a chunk the table is (q, q), and there are l / q of them: l q, not l * l.",
            lambda l, q, p, n: l * l * (n + p) + 2 * l * n * p,
        ),
    ),
    hints=(
        "Four products for a chunk: C B^T; the table times the values; C times the old state; the values times B for the new state.",
        "They take q q n, q q p, q n p and p q n. Add them and multiply by l / q.",
    ),
)
