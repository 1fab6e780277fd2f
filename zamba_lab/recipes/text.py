"""The shipped corpus as two domains, Python and prose, in tokens: what the recipes of this project train on.

python    the standard library's modules: phase 1, and the replay of phase 2
prose     the language's help topics: the high-quality text of phase 2
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from zamba_lab import corpora
from zamba_lab.corpora import Document, Packed
from zamba_lab.tokenizer import Tokenizer

PYTHON, PROSE = "python", "prose"


class Text(NamedTuple):
    """The documents, the vocabulary made of their training split, and each split's tokens by domain."""

    documents: list[Document]
    tokenizer: Tokenizer
    train: dict[str, Packed]
    validation: dict[str, Packed]


def shipped_text(vocab_size: int) -> Text:
    """Read, tokenise and pack: some seconds."""
    documents = corpora.stdlib_documents()
    tokenizer = corpora.train_tokenizer(corpora.texts(documents, "train"), vocab_size)
    return Text(documents, tokenizer, *(packed(documents, split, tokenizer) for split in ("train", "validation")))


def packed(documents: Sequence[Document], split: str, tokenizer: Tokenizer) -> dict[str, Packed]:
    """The tokens of one split, by domain."""
    return {
        name: corpora.pack([document.text for document in documents if document.split == split and domain(document) == name], tokenizer)
        for name in (PYTHON, PROSE)
    }


def domain(document: Document) -> str:
    return PROSE if document.path.startswith("topics/") else PYTHON
