"""Every task at three sizes: `ci` for tests, `laptop` for an hour on two cores, `paper` as published (sources in the classes).

What no paper gives is chosen here: `laptop` and `ci` throughout, and where a docstring says that sizes were not to be looked up.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from zamba_lab.tasks.copying import Copying, NGramRetrieval, PositionRetrieval, SelectiveCopying
from zamba_lab.tasks.mad import Compression, FuzzyRecall, InContextRecall, Memorization
from zamba_lab.tasks.recall import MQAR, CompositionalMQAR, ForgettingMQAR, Induction, Needle
from zamba_lab.tasks.task import Task
from zamba_lab.tasks.text import Text
from zamba_lab.tasks.tracking import Dyck, WordProblem

SIZES = ("ci", "laptop", "paper")
# name: class, and the fields at each of SIZES
TASKS: dict[str, tuple[type[Task], tuple[dict, dict, dict]]] = {
    "mqar": (MQAR, (dict(vocab_size=64, length=32, kv=4), dict(vocab_size=256, length=64, kv=8), dict(vocab_size=8192, length=512, kv=64))),
    "forgetting": (
        ForgettingMQAR,
        (
            dict(vocab_size=64, length=32, kv=4, updates=2),
            dict(vocab_size=256, length=64, kv=8, updates=4),
            dict(vocab_size=8192, length=256, kv=8, updates=4),
        ),
    ),
    "compositional": (
        CompositionalMQAR,
        (dict(vocab_size=96, length=32, kv=4), dict(vocab_size=256, length=64, kv=9), dict(vocab_size=8192, length=128, kv=16)),
    ),
    "in_context_recall": (
        InContextRecall,
        (dict(vocab_size=16, length=32), dict(vocab_size=16, length=64), dict(vocab_size=16, length=128)),
    ),
    "fuzzy_recall": (
        FuzzyRecall,
        (dict(vocab_size=16, length=32, motif=2), dict(vocab_size=16, length=64, motif=3), dict(vocab_size=16, length=128, motif=3)),
    ),
    "noisy_recall": (InContextRecall, tuple(dict(vocab_size=32, length=length, noise_tokens=16, noise=0.2) for length in (32, 64, 128))),
    "selective_copying": (
        SelectiveCopying,
        (dict(vocab_size=16, length=24, copied=4), dict(vocab_size=16, length=64, copied=16), dict(vocab_size=16, length=256, copied=16)),
    ),
    "compression": (Compression, (dict(symbols=8, content=8), dict(symbols=15, content=16), dict(symbols=15, content=31))),
    "memorization": (Memorization, (dict(vocab_size=33, length=16), dict(vocab_size=129, length=32), dict(vocab_size=256, length=32))),
    "induction": (Induction, tuple(dict(vocab_size=16, length=length) for length in (32, 128, 256))),
    "copying": (
        Copying,
        (dict(symbols=16, shortest=4, longest=12), dict(symbols=26, shortest=8, longest=25), dict(symbols=26, shortest=8, longest=50)),
    ),
    "needle": (
        Needle,
        (
            dict(vocab_size=64, length=32, needles=2),
            dict(vocab_size=256, length=256, needles=4),
            dict(vocab_size=8192, length=4096, needles=4),
        ),
    ),
    "ngram_retrieval": (
        NGramRetrieval,
        (
            dict(symbols=16, string=24, query=2, answer=2),
            dict(symbols=26, string=64, query=2, answer=2),
            dict(symbols=26, string=220, query=3, answer=3),
        ),
    ),
    "position_retrieval": (PositionRetrieval, (dict(symbols=32, string=16), dict(symbols=64, string=32), dict(symbols=256, string=128))),
    "parity": (WordProblem, tuple(dict(group="Z2", length=length) for length in (16, 32, 40))),
    "modular": (WordProblem, (dict(group="Z5", length=16), dict(group="Z5", length=32), dict(group="Z60", length=25))),
    "s3": (WordProblem, (dict(group="S3", length=16), dict(group="S3", length=32), dict(group="S3", length=128))),
    "s5": (WordProblem, (dict(group="S5", length=8), dict(group="S5", length=16), dict(group="S5", length=25))),
    "dyck": (Dyck, (dict(kinds=4, depth=4, length=32), dict(kinds=8, depth=6, length=64), dict(kinds=8, depth=10, length=700))),
    "text": (Text, (dict(length=64), dict(length=256), dict(length=1024))),
}


def names() -> tuple[str, ...]:
    """Every task there is."""
    return tuple(TASKS)


def get(name: str, size: str = "ci", **changes: Any) -> Task:
    """A task at one of its sizes. changes: fields that differ from it, as with `dataclasses.replace`.

    Raises ValueError naming the tasks, the sizes or the fields there are, or the rule that the fields break.
    """
    if name not in TASKS:
        raise ValueError(f"no task {name!r}: there are {', '.join(TASKS)}")
    if size not in SIZES:
        raise ValueError(f"size must be one of {', '.join(SIZES)}: got {size!r}")
    kind, sizes = TASKS[name]
    known = [one.name for one in fields(kind) if one.name not in ("name", "size")]
    if unknown := sorted(changes.keys() - set(known)):
        raise ValueError(f"{name} has no field {', '.join(unknown)}: there are {', '.join(known)}")
    return kind(name=name, size=size, **sizes[SIZES.index(size)] | changes)
