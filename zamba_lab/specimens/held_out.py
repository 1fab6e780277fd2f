"""The texts of a sheet: on every machine that runs the lab, and kept out of training here."""

import hashlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from zamba_lab import corpora
from zamba_lab.corpora import Document, Installed
from zamba_lab.corpora.installed import HELD_OUT
from zamba_lab.tokenizer import Tokenizer

PACKAGES, FILES, PROSE, LIBRARY = "held-out packages", "held-out files", "held-out prose", "standard library, test split"


def held_out() -> dict[str, list[str]]:
    """Name -> texts, ordered by the hash of their paths. Reading the packages takes some ten seconds.

    Python of the packages that are never trained on; of the held-out files of the other packages; docstrings of the former; the
    standard library's test split, on which the shipped models were measured first. Raises ValueError if one of the packages is
    not installed.
    """
    packages = tuple(name for name in Installed().packages if name.lower() in HELD_OUT)
    return {
        PACKAGES: _texts(Installed(packages=packages).documents("test")),
        FILES: _texts(Installed().documents("validation")),
        PROSE: _texts(Installed("docstrings", packages).documents("test")),
        LIBRARY: _texts(
            document for document in corpora.stdlib_documents() if document.split == "test" and not document.path.startswith("topics/")
        ),
    }


def _texts(documents: Iterable[Document]) -> list[str]:
    ordered = sorted(documents, key=lambda document: hashlib.sha256(document.path.encode()).digest())
    return list(dict.fromkeys(document.text for document in ordered))


def windows(texts: Sequence[str], tokenizer: Tokenizer, length: int, count: int) -> Tensor:
    """The first `length` tokens, the start token included, of the first `count` texts that are that long: (count, length).

    Raises ValueError if there are not so many.
    """
    rows: list[list[int]] = []
    for text in texts:
        ids = tokenizer.encode(text[: 40 * length])
        if len(ids) >= length:
            rows.append(ids[:length])
        if len(rows) == count:
            return torch.tensor(rows)
    raise ValueError(f"a sheet needs {count} documents of {length} tokens or more of each kind: got {len(rows)} of {len(texts)}")


def some(texts: Sequence[str], n_bytes: int, longest: int = 24_000) -> list[str]:
    """The first texts, each cut to `longest` characters, until they have `n_bytes` bytes or more."""
    chosen, total = [], 0
    for text in texts:
        if total >= n_bytes:
            break
        chosen.append(text[:longest])
        total += len(chosen[-1].encode())
    return chosen
