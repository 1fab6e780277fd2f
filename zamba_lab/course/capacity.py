"""Lesson 5: how many pairs of key and value fit in a state."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from zamba_lab.course.exercises import Exercise, Mistake
from zamba_lab.course.inputs import draw

# --- solutions, as a learner reads them ----------------------------------------------------------------------------


def store(keys, values):
    """Write pairs into one state: the sum of the outer products value key^T.

    keys: (m, n). values: (m, p).
    Returns the state: (p, n).
    """
    return values.T @ keys


def interference(m, n):
    """The expected squared error of one component of what is read back.

    The state holds m pairs. Keys are random, of length 1, in n dimensions: the square of the inner product
    of two of them is 1 / n on average.
    The components of the values are independent, with mean 0 and variance 1.
    Returns a number.
    """
    return (m - 1) / n


def overwrite(state, key, value):
    """Write a value under a key so that the state gives it back exactly, whatever it gave for this key before.

    What is stored under keys orthogonal to this one must stay as it is.
    state: (p, n). key: (n,), of length 1. value: (p,).
    Returns the new state: (p, n).
    """
    old = state @ key
    return state + torch.outer(value - old, key)


def remembered(decay):
    """How many pairs interfere, in effect, when the state decays by the same factor at each of very many writes.

    A pair that is j writes old has the weight decay^j, and disturbs in proportion to its square. The newest, j = 0, counts as 1.
    decay: a number between 0 and 1. Returns a number: the sum over all j.
    """
    return 1 / (1 - decay**2)


# --- for the lesson --------------------------------------------------------------------------------------------------


def random_pairs(m: int, n: int, vocabulary: int, p: int, seed: int, orthogonal: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Keys (m, n) of length 1, the places (m,) of their values in a list of words, and the words (vocabulary, p), of signs.

    orthogonal: the first n keys are orthogonal, the next n are, and so on.
    """
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(-(-m // n) * n, n, generator=generator)
    if orthogonal:
        keys = torch.cat([torch.linalg.qr(part)[0] for part in keys.split(n)])
    words = torch.randint(0, 2, (vocabulary, p), generator=generator) * 2.0 - 1
    return torch.nn.functional.normalize(keys[:m], dim=1), torch.randint(0, vocabulary, (m,), generator=generator), words


def recall(m: int, n: int, vocabulary: int = 64, p: int = 32, trials: int = 8, orthogonal: bool = False) -> float:
    """The measured share of m stored words that are found again: each key reads the state, and the word most like the result is taken."""
    found = []
    for seed in range(trials):
        keys, places, words = random_pairs(m, n, vocabulary, p, seed, orthogonal)
        read = keys @ store(keys, words[places]).T  # (m, p)
        found.append(((read @ words.T).argmax(1) == places).double().mean())
    return float(torch.stack(found).mean())


def expected_recall(m: int, n: int, vocabulary: int = 64, p: int = 32) -> float:
    """The same by theory, for random keys, with every word's score Gaussian and independent of the others.

    The score of a word is its inner product with what was read. Interference gives it the variance (m - 1) / n times the mean square of
    the inner product of two words: p, or p^2 for the one in `vocabulary` that is the word itself. Besides, the right word has p, and any
    other N(0, p).
    """
    noise = interference(m, n) * (p * (1 - 1 / vocabulary) + p**2 / vocabulary)
    z = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    beats_one = torch.special.ndtr((p + math.sqrt(noise) * z) / math.sqrt(p + noise))
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    return float(torch.trapezoid(density * beats_one ** (vocabulary - 1), z))


def recall_curves(sizes: Sequence[int], pairs: Sequence[int], orthogonal: bool = False) -> dict[str, tuple[list, list]]:
    """For each size n of a key, what is measured over the numbers of pairs."""
    kind = "orthogonal" if orthogonal else "random"
    return {f"{kind} keys, n = {n}": (list(pairs), [recall(m, n, orthogonal=orthogonal) for m in pairs]) for n in sizes}


def theory_curves(sizes: Sequence[int], pairs: Sequence[int]) -> dict[str, tuple[list, list]]:
    return {f"theory, n = {n}": (list(pairs), [expected_recall(m, n) for m in pairs]) for n in sizes}


# --- mistakes ------------------------------------------------------------------------------------------------------


def unit(t: Tensor) -> Tensor:
    return t / t.norm()


STORE = Exercise(
    number="5.1",
    title="many pairs, one state",
    level="easy",
    minutes=5,
    solution=store,
    cases=lambda: [tuple(draw(1, (7, 3), (7, 5))), tuple(draw(2, (3, 6), (3, 2)))],
    mistakes=(
        Mistake(
            "Only the last pair is in the state",
            "The others are overwritten. Add each outer product to what is there.",
            lambda keys, values: torch.outer(values[-1], keys[-1]),
        ),
        Mistake(
            "Keys and values are summed apart",
            "The outer product of two sums also pairs every key with every other key's value. Take the outer product of each pair "
            "first, then add.",
            lambda keys, values: torch.outer(values.sum(0), keys.sum(0)),
        ),
        Mistake(
            "This is the mean over the pairs, not their sum",
            "Dividing by m makes each of them fainter; reading would give value / m.",
            lambda keys, values: values.T @ keys / len(keys),
        ),
    ),
    hints=(
        "`torch.outer(values[i], keys[i])` is (p, n): one pair. What do you do with m of them?",
        "A sum of outer products is one matrix product: `values.T @ keys`.",
    ),
)

INTERFERENCE = Exercise(
    number="5.2",
    title="how loud is the noise?",
    level="medium",
    minutes=10,
    solution=interference,
    cases=lambda: [(9, 64), (33, 16), (2, 5)],
    mistakes=(
        Mistake("The pair that is read counts as noise, too", "Of the m pairs one is the right one: m - 1 disturb.", lambda m, n: m / n),
        Mistake(
            "This is the standard deviation, not the squared error",
            "Variances of independent disturbances add up: leave out the root.",
            lambda m, n: math.sqrt((m - 1) / n),
        ),
        Mistake("The inner product is squared twice", "1 / n is the average of the square already.", lambda m, n: (m - 1) / n**2),
        Mistake(
            "The inner product is not squared",
            "The typical inner product is 1 / sqrt(n); what counts for a squared error is its square, 1 / n.",
            lambda m, n: (m - 1) / math.sqrt(n),
        ),
    ),
    hints=(
        "Reading with key j gives value j plus, for every other pair i, value i times the inner product of key i and key j. What is "
        "the variance of one such term?",
        "Each of the m - 1 other terms has variance 1 (of the value) times 1 / n (of the inner product), and independent variances add.",
    ),
)

OVERWRITE = Exercise(
    number="5.3",
    title="write over an old value",
    level="medium",
    minutes=10,
    solution=overwrite,
    cases=lambda: [(state, unit(key), value) for p, n in ((3, 5), (4, 2)) for state, key, value in (draw(p, (p, n), (n,), (p,)),)],
    mistakes=(
        Mistake(
            "The old value is still there",
            "A plain write adds: reading gives the old value plus the new one. First take away what the state gives for this key.",
            lambda state, key, value: state + torch.outer(value, key),
        ),
        Mistake(
            "The whole state is erased",
            "Everything under other keys is gone. Take away only what the state gives for this key.",
            lambda state, key, value: torch.outer(value, key),
        ),
        Mistake(
            "The sign is wrong",
            "The difference to write is value - old; with old - value the state moves away from what it should give.",
            lambda state, key, value: state + torch.outer(state @ key - value, key),
        ),
        Mistake(
            "The old value is taken away, the new one is not written",
            "After erasing, add torch.outer(value, key).",
            lambda state, key, value: state - torch.outer(state @ key, key),
        ),
    ),
    hints=(
        "What does the state give for this key now? What would you have to add to that?",
        "Write the difference under the key: `state + torch.outer(value - state @ key, key)`. As the key has length 1, reading gives "
        "the value.",
    ),
)

REMEMBERED = Exercise(
    number="5.4",
    title="forgetting makes room",
    level="easy",
    minutes=5,
    solution=remembered,
    cases=lambda: [(0.9,), (0.5,), (0.997,)],
    mistakes=(
        Mistake(
            "The weights are not squared",
            "1 / (1 - decay) is the sum of the weights. A disturbance counts by its variance, so by the square of its weight.",
            lambda decay: 1 / (1 - decay),
        ),
        Mistake("The newest pair is left out", "The sum begins at j = 0, with the term 1.", lambda decay: decay**2 / (1 - decay**2)),
        Mistake(
            "This squares the sum, not the weights",
            "(1 / (1 - decay))^2 is the square of a sum. Needed is the sum of squares.",
            lambda decay: 1 / (1 - decay) ** 2,
        ),
    ),
    hints=(
        "Write the first three terms of the sum: 1 + decay^2 + ... It is a geometric series; in which ratio?",
        "The ratio is decay^2, so the sum is 1 / (1 - decay^2).",
    ),
)

EXERCISES = (STORE, INTERFERENCE, OVERWRITE, REMEMBERED)
