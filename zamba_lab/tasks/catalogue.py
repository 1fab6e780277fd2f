"""Every task at three sizes: `ci` for tests, `laptop` for an hour on two cores, `paper` as published (sources in the classes).

What no paper gives is chosen here: `laptop` and `ci` throughout, and where a docstring says that sizes were not to be looked up.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from zamba_lab.tasks.copying import Copying, NGramRetrieval, PositionRetrieval, SelectiveCopying
from zamba_lab.tasks.mad import Compression, FuzzyRecall, InContextRecall, Memorization
from zamba_lab.tasks.recall import MQAR, CompositionalMQAR, ForgettingMQAR, Induction, MixedMQAR, Needle
from zamba_lab.tasks.task import Task
from zamba_lab.tasks.text import Text
from zamba_lab.tasks.tracking import Dyck, WordProblem

SIZES = ("ci", "laptop", "paper")
# name: class, the fields that differ, and their values at each of SIZES
TASKS: dict[str, tuple[type[Task], str, tuple, tuple, tuple]] = {
    "mqar": (MQAR, "vocab_size length kv", (64, 32, 4), (256, 64, 8), (8192, 512, 64)),
    "mixed_recall": (MixedMQAR, "vocab_size length kv least", (64, 32, 8, 2), (256, 128, 32, 4), (8192, 512, 64, 4)),
    "forgetting": (ForgettingMQAR, "vocab_size length kv updates", (64, 32, 4, 2), (256, 64, 8, 4), (8192, 256, 8, 4)),
    "compositional": (CompositionalMQAR, "vocab_size length kv", (96, 32, 4), (256, 64, 9), (8192, 128, 16)),
    "in_context_recall": (InContextRecall, "vocab_size length", (16, 32), (16, 64), (16, 128)),
    "fuzzy_recall": (FuzzyRecall, "vocab_size length motif", (16, 32, 2), (16, 64, 3), (16, 128, 3)),
    "noisy_recall": (InContextRecall, "vocab_size length noise_tokens noise", (32, 32, 16, 0.2), (32, 64, 16, 0.2), (32, 128, 16, 0.2)),
    "selective_copying": (SelectiveCopying, "vocab_size length copied", (16, 24, 4), (16, 64, 16), (16, 256, 16)),
    "compression": (Compression, "symbols content", (8, 8), (15, 16), (15, 31)),
    "memorization": (Memorization, "vocab_size length", (33, 16), (129, 32), (256, 32)),
    "induction": (Induction, "vocab_size length", (16, 32), (16, 128), (16, 256)),
    "copying": (Copying, "symbols shortest longest", (16, 4, 12), (26, 8, 25), (26, 8, 50)),
    "needle": (Needle, "vocab_size length needles", (64, 32, 2), (256, 256, 4), (8192, 4096, 4)),
    "ngram_retrieval": (NGramRetrieval, "symbols string query answer", (16, 24, 2, 2), (26, 64, 2, 2), (26, 220, 3, 3)),
    "position_retrieval": (PositionRetrieval, "symbols string", (32, 16), (64, 32), (256, 128)),
    "parity": (WordProblem, "group length", ("Z2", 16), ("Z2", 32), ("Z2", 40)),
    "modular": (WordProblem, "group length", ("Z5", 16), ("Z5", 32), ("Z60", 25)),
    "s3": (WordProblem, "group length", ("S3", 16), ("S3", 32), ("S3", 128)),
    "s5": (WordProblem, "group length", ("S5", 8), ("S5", 16), ("S5", 25)),
    "dyck": (Dyck, "kinds depth length", (4, 4, 32), (8, 6, 64), (8, 10, 700)),
    "text": (Text, "length", (64,), (256,), (1024,)),
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
    kind, differing, *values = TASKS[name]
    known = [field.name for field in fields(kind) if field.name not in ("name", "size")]
    if unknown := sorted(changes.keys() - set(known)):
        raise ValueError(f"{name} has no field {', '.join(unknown)}: there are {', '.join(known)}")
    return kind(name=name, size=size, **dict(zip(differing.split(), values[SIZES.index(size)])) | changes)
