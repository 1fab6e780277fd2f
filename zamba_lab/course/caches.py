"""Lesson 9: what a model carries along a text, and what a token costs."""

from zamba_lab.course.exercises import Exercise, Mistake

# --- solutions, as a learner reads them ----------------------------------------------------------------------------


def kv_bytes(tokens, invocations, heads, width, itemsize):
    """Bytes of the keys and values that attention keeps of a text.

    tokens: of the text. invocations: how often attention runs down the depth. heads: of each. width: numbers in a key;
    a value has as many. itemsize: bytes of a number.
    """
    return tokens * invocations * heads * 2 * width * itemsize


def same_memory(hybrid_fixed, hybrid_slope, dense_fixed, dense_slope):
    """At how many tokens do a hybrid and a transformer need the same memory?

    Each needs fixed + slope * tokens bytes: weights and states are fixed, keys and values grow.
    The hybrid has the larger fixed part and the smaller slope. Returns a number, which need not be whole.
    """
    return (hybrid_fixed - dense_fixed) / (dense_slope - hybrid_slope)


def seconds_per_token(weights, cache, texts, bandwidth):
    """Time for a token if nothing counts but reading memory, for several texts that are written at once.

    In a step every text gets one token. Weights are read once for all of them; every text has a cache of its own.
    weights, cache: bytes, the cache that of one text. texts: how many. bandwidth: bytes a second.
    Returns the seconds of a step divided by the tokens that it gives.
    """
    return (weights + texts * cache) / bandwidth / texts


KV_BYTES = Exercise(
    number="9.1",
    title="keys and values",
    level="easy",
    minutes=5,
    solution=kv_bytes,
    cases=lambda: [(1000, 9, 32, 80, 2), (37, 4, 5, 7, 4)],
    mistakes=(
        Mistake(
            "Values are missing",
            "A key and a value are kept of every token: twice the width.",
            lambda tokens, invocations, heads, width, itemsize: tokens * invocations * heads * width * itemsize,
        ),
        Mistake(
            "The cache is counted once for the shared block",
            "The weights are shared, the keys and values are not: every invocation reads another stream and keeps its own.",
            lambda tokens, invocations, heads, width, itemsize: tokens * heads * 2 * width * itemsize,
        ),
        Mistake(
            "Heads are missing",
            "Every head has keys and values of this width.",
            lambda tokens, invocations, heads, width, itemsize: tokens * invocations * 2 * width * itemsize,
        ),
        Mistake(
            "These are numbers, not bytes",
            "Multiply by the bytes of a number.",
            lambda tokens, invocations, heads, width, itemsize: tokens * invocations * heads * 2 * width,
        ),
    ),
    hints=(
        "How many numbers does one head keep of one token? Then: how many heads, invocations, tokens?",
        "A head keeps 2 * width numbers of a token. Multiply by heads, invocations, tokens, and the bytes of a number.",
    ),
)

SAME_MEMORY = Exercise(
    number="9.2",
    title="where the lines cross",
    level="easy",
    minutes=5,
    solution=same_memory,
    cases=lambda: [(7e9, 2e5, 5e9, 4e5), (900.0, 3.0, 700.0, 11.0)],
    mistakes=(
        Mistake(
            "The sign is wrong",
            "The hybrid begins higher and grows more slowly: both differences must be taken so that they are positive.",
            lambda hf, hs, df, ds: (hf - df) / (hs - ds),
        ),
        Mistake(
            "The hybrid's own keys and values are left out",
            "A hybrid has attention, too. The gap closes at the difference of both slopes.",
            lambda hf, hs, df, ds: (hf - df) / ds,
        ),
        Mistake(
            "The transformer's fixed part is left out",
            "The transformer has weights as well: only the difference of the fixed parts has to be made up for.",
            lambda hf, hs, df, ds: hf / (ds - hs),
        ),
        Mistake("The fraction is upside down", "Bytes divided by bytes a token give tokens.", lambda hf, hs, df, ds: (ds - hs) / (hf - df)),
    ),
    hints=(
        "Set the two sums equal and solve for the number of tokens.",
        "The gap at 0 tokens is hybrid_fixed - dense_fixed; each token closes dense_slope - hybrid_slope of it.",
    ),
)

SECONDS_PER_TOKEN = Exercise(
    number="9.3",
    title="many texts at once",
    level="medium",
    minutes=10,
    solution=seconds_per_token,
    cases=lambda: [(5e9, 3e8, 8, 1e12), (100.0, 7.0, 3, 50.0)],
    mistakes=(
        Mistake(
            "The weights are read for each text",
            "That is the point of a batch: weights are read once in a step, whatever the number of texts.",
            lambda weights, cache, texts, bandwidth: (weights + cache) / bandwidth,
        ),
        Mistake(
            "All texts share one cache",
            "Every text has its own: texts * cache bytes are read in a step.",
            lambda weights, cache, texts, bandwidth: (weights + cache) / bandwidth / texts,
        ),
        Mistake(
            "This is the time of a step, not of a token",
            "A step gives one token to each text: divide by their number.",
            lambda weights, cache, texts, bandwidth: (weights + texts * cache) / bandwidth,
        ),
    ),
    hints=(
        "First the bytes that are read in one step. Which part is read once, which part once for each text?",
        "(weights + texts * cache) / bandwidth is the time of a step, and it gives `texts` tokens.",
    ),
)

EXERCISES = (KV_BYTES, SAME_MEMORY, SECONDS_PER_TOKEN)
