"""Made-up texts, and pairs of them whose similarity is known: what finding duplicates is tested and measured on."""

import random

from zamba_lab.corpora.grams import similarity


def vocabulary(rng: random.Random, size: int = 4000) -> list[str]:
    return ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(size)]


def document(rng: random.Random, words: list[str], characters: int) -> str:
    """Sentences of random words, in lines, of at least so many characters."""
    out, length = [], 0
    while length < characters:
        line = " ".join(rng.choices(words, k=rng.randint(6, 14))).capitalize() + ".\n"
        out.append(line)
        length += len(line)
    return "".join(out)


def words_changed(text: str, target: float, rng: random.Random, words: list[str]) -> str:
    """Single words replaced, so many that about `target` of the grams are left in common."""
    parts = text.split(" ")
    count = round(len(text) * (1 - target) / (32 * (1 + target)))
    for at in rng.sample(range(len(parts)), min(count, len(parts))):
        parts[at] = rng.choice(words)
    return " ".join(parts)


def truncated(text: str, target: float, rng: random.Random, words: list[str]) -> str:
    return text[: int(len(text) * target)]


def header_changed(text: str, target: float, rng: random.Random, words: list[str]) -> str:
    """Another opening before the same text."""
    return document(rng, words, int(len(text) * (1 / target - 1) * 0.95))[: int(len(text) * (1 / target - 1))] + text


EDITS = {"words changed": words_changed, "truncated": truncated, "header changed": header_changed}


def near_pairs(seed: int, count: int, low: float = 0.9) -> list[tuple[str, str, str, float]]:
    """(original, copy, kind of edit, similarity) with similarities spread evenly over [low, 1]."""
    rng = random.Random(seed)
    words, pairs = vocabulary(rng), []
    while len(pairs) < count:
        kind = list(EDITS)[len(pairs) % len(EDITS)]
        original = document(rng, words, rng.randint(800, 4000))
        copy = EDITS[kind](original, rng.uniform(low, 1), rng, words)
        if (found := similarity(original, copy)) >= low:
            pairs.append((original, copy, kind, found))
    return pairs


def hard_negatives(seed: int, count: int, shared: tuple[float, float] = (0.5, 0.88)) -> list[str]:
    """Texts alike in pairs, but not near duplicates: the same page around another story. Similarities under 0.8."""
    rng = random.Random(seed)
    words, texts = vocabulary(rng), []
    while len(texts) < count:
        size = rng.randint(1500, 4000)
        share = rng.uniform(*shared)
        page = document(rng, words, int(size * share))
        pair = [page + document(rng, words, int(size * (1 - share))) for _ in range(2)]
        if similarity(*pair) < 0.8:
            texts += pair
    return texts
