"""Tasks whose answer lies far back in the text, of any length, made from a seed: four of the kinds that RULER has (Hsieh et al. 2024).

    needle      one line names a number; which?            multikey    four lines name one each; which is the one asked for?
    variables   assignments, one from another; which variables have a given value?
    words       a list in which three words come often and others seldom; which three?

A text has as many lines as fit into the length asked for, in the model's tokens, with WRITTEN of them left for the answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

from datasets import Dataset, DatasetDict

from zamba_lab.checkpoints.load import locate, read_tokenizer
from zamba_lab.tokenizer import Tokenizer

LENGTHS = tuple(2**k for k in range(7, 18))  # those that tasks/long.yaml has a measure for
WRITTEN = 32  # tokens left for the answer, as max_gen_toks in tasks/long.yaml
THINGS = [
    *("river", "castle", "garden", "harbour", "island", "market", "meadow", "mountain"),
    *("orchard", "palace", "quarry", "station", "temple", "tower", "valley", "village"),
]
SAID = ["The road goes on.", "The sky is grey.", "The wind is calm.", "Nobody is there.", "It is late.", "The door is shut."]
Made = Callable[[Random, int], tuple[str, list[str]]]  # a text with so many lines that say nothing, and the answers


def needle(**given) -> DatasetDict:
    """One number among lines that say nothing."""
    return _documents(lambda random, lines: _numbers(random, lines, 1), 1, **given)


def multikey(**given) -> DatasetDict:
    """The number of one of four things."""
    return _documents(lambda random, lines: _numbers(random, lines, 4), 2, **given)


def variables(**given) -> DatasetDict:
    """Two chains of three assignments each; the names of one."""

    def make(random: Random, lines: int) -> tuple[str, list[str]]:
        names, values = random.sample([a + b for a in "ABCDEFGH" for b in "JKLMNPQR"], 6), random.sample(range(1000, 10000), 2)
        chains = [[f"{c[0]} = {value}", f"{c[1]} = {c[0]}", f"{c[2]} = {c[1]}"] for c, value in zip((names[:3], names[3:]), values)]
        text = _scattered(random, lines, chains)
        return f"{text}\n# The names that have the value {values[0]}:", names[:3]

    return _documents(make, 3, **given)


def words(**given) -> DatasetDict:
    """The three commonest words of a list: each comes as often as all other words together."""

    def make(random: Random, lines: int) -> tuple[str, list[str]]:
        common, *rest = random.sample(THINGS, 3), *random.sample(THINGS, len(THINGS))
        rest = [word for word in rest if word not in common]
        listed = [word for n in range(1 + lines // 4) for word in [*common, rest[n % len(rest)]]]
        return f"{' '.join(random.sample(listed, len(listed)))}\nThe three commonest words above:", common

    return _documents(make, 4, **given)


def _numbers(random: Random, lines: int, count: int) -> tuple[str, list[str]]:
    things, numbers = random.sample(THINGS, count), random.sample(range(10000, 100000), count)
    text = _scattered(random, lines, [[f"The number of the {thing} is {number}."] for thing, number in zip(things, numbers)])
    return f"{text}\nThe number of the {things[0]} is", [str(numbers[0])]


def _scattered(random: Random, lines: int, chains: Sequence[Sequence[str]]) -> str:
    """Lines that say nothing, and the chains among them: each in its order, anywhere."""
    text = [(random.random(), random.choice(SAID)) for _ in range(lines)]
    for chain in chains:
        text += zip(sorted(random.random() for _ in chain), chain)
    return "\n".join(line for _, line in sorted(text))


def _documents(make: Made, seed: int, max_seq_lengths: Sequence[int] = (256, 512, 1024), samples: int = 20, **given) -> DatasetDict:
    """`samples` texts of each length, in turns. given: the task's metadata, of which tokenizer or pretrained says whose tokens count."""
    if wrong := set(max_seq_lengths) - set(LENGTHS):
        raise ValueError(f"lengths must be among {', '.join(map(str, LENGTHS))}: got {sorted(wrong)}")
    tokenizer = _tokenizer(given.get("tokenizer") or given.get("pretrained"))
    rows = []
    for n in range(samples):
        for length in max_seq_lengths:  # inside, so that a limit on the documents takes all lengths alike
            text, answers = _fitted(lambda lines: make(Random(f"{seed} {length} {n}"), lines), tokenizer, length - WRITTEN)
            rows.append({"text": text, "answers": answers, "length": length})
    return DatasetDict(test=Dataset.from_list(rows))


def _tokenizer(source) -> Tokenizer:
    found = source if isinstance(source, Tokenizer) or source is None else read_tokenizer(locate(source)[0])
    if found is None:
        raise ValueError("a long text is as many tokens as are asked for, so its tokenizer must be known: give pretrained= or tokenizer=")
    return found


def _fitted(make: Callable[[int], tuple[str, list[str]]], tokenizer: Tokenizer, most: int) -> tuple[str, list[str]]:
    """The longest text of at most `most` tokens, the start token included, and its answers."""

    def fits(lines: int) -> bool:
        return len(tokenizer.encode(make(lines)[0])) <= most

    if not fits(0):
        raise ValueError(f"a text of this task has {len(tokenizer.encode(make(0)[0]))} tokens at least: {most} are too few")
    few, many = 0, 16
    while fits(many):
        few, many = many, 2 * many
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (middle, many) if fits(middle) else (few, middle)
    return make(few)


def recall(document: dict, results: list[str]) -> dict[str, float]:
    """The share of the answers that stand in the model's text as whole words, letter for letter, for all lengths and for this one."""
    share = len(set(document["answers"]) & set(re.findall(r"\w+", results[0]))) / len(document["answers"])
    return {"recall": share, f"recall at {document['length']}": share}
