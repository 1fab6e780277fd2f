"""A corpus on disk: what `build` wrote, opened without reading it.

manifest.json                    what was read, kept and dropped, stage by stage, and the hash of every file below
tokenizer.json, or .model
train.tokens.npy                 `<s>` text `<s>` text ... `<s>`, as `tokens.py` packs; also validation, test
train.starts.npy                 where each document's `<s>` is, int64
documents.csv                    split, source, path, bytes and SHA-256 of each document, in the order of the tokens
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zamba_lab.corpora.stdlib import SPLITS
from zamba_lab.corpora.tokens import Packed
from zamba_lab.tokenizer import Tokenizer

if TYPE_CHECKING:
    from zamba_lab.config import ZambaConfig

MANIFEST, DOCUMENTS = "manifest.json", "documents.csv"


@dataclass(frozen=True)
class Corpus:
    """A finished corpus. `packed("train")` is what a training loop reads; printing it shows what each stage kept and dropped."""

    folder: Path
    manifest: dict

    def packed(self, split: str, source: str | None = None) -> Packed:
        """The tokens of a split, mapped from the file, and the bytes of text they stand for; of one source, by its name, or of all.

        Raises ValueError if there is no document of it, if the split is not "train", "validation" or "test", or for an unknown source.
        """
        facts = self._facts(split)
        tokens = np.load(self.folder / f"{split}.tokens.npy", mmap_mode="r")
        if source is None:
            return Packed(tokens, facts["bytes"])
        by_source = facts.get("sources", {})
        if not by_source.get(source, {}).get("documents"):
            there = ", ".join(f"{name} {counts['documents']}" for name, counts in by_source.items())
            raise ValueError(f"the source must have documents in the split {split!r}: got {source!r}, there are: {there}")
        first = sum(counts["documents"] for counts in islice(by_source.values(), list(by_source).index(source)))
        ends = [*self.starts(split)[[first]], *self.starts(split)[first + by_source[source]["documents"] :][:1], len(tokens) - 1]
        return Packed(tokens[ends[0] : ends[1] + 1], by_source[source]["bytes"])  # a source's documents lie together

    def starts(self, split: str) -> np.ndarray:
        """(documents,) int64: the place of each document's first token; the next one's, or the last token, is its end."""
        self._facts(split)
        return np.load(self.folder / f"{split}.starts.npy", mmap_mode="r")

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.load(self.folder)

    @property
    def vocab_size(self) -> int:
        return self.manifest["tokenizer"]["vocab_size"]

    @property
    def pieces_hash(self) -> str:
        """`Tokenizer.pieces_hash` of the tokenizer that made the tokens, to compare with a model's."""
        return self.manifest["tokenizer"].get("pieces_hash") or self.tokenizer.pieces_hash  # older manifests lack it

    def check(self) -> str:
        """An empty string if every file has the hash it was written with, or a sentence that names those that have not."""
        files = {self.folder / name: known for name, known in self.manifest["files"].items()}
        wrong = [file.name for file, known in files.items() if not file.is_file() or file_hash(file) != known]
        return f"the corpus {str(self.folder)!r} was changed after it was built: {', '.join(wrong)}" if wrong else ""

    def __str__(self) -> str:
        lines = [f"{'stage':24}{'documents':>12}{'MB':>12}"]
        for stage in self.manifest["stages"]:
            lines.append(f"{stage['stage']:24}{stage['documents']:>12,}{stage['bytes'] / 1e6:>12,.2f}")
            for rule, counts in stage["dropped"].items():
                lines.append(f"  - {rule:20}{counts['documents']:>12,}{counts['bytes'] / 1e6:>12,.2f}")
        for split, facts in self.manifest["splits"].items():
            lines.append(f"{split:24}{facts['documents']:>12,}{facts['bytes'] / 1e6:>12,.2f}{facts['tokens']:>16,} tokens")
        return "\n".join(lines)

    def _facts(self, split: str) -> dict:
        facts = self.manifest["splits"]
        if split not in SPLITS:
            raise ValueError(f"split must be one of {sorted(SPLITS)}: got {split!r}")
        if not facts[split]["documents"]:
            counts = ", ".join(f"{name} {of_split['documents']}" for name, of_split in facts.items())
            raise ValueError(
                f"the split must have documents: {split!r} of {str(self.folder)!r} has none ({counts}); the hash "
                "of a document's path decides its split, so more documents or other names change that"
            )
        return facts[split]


def load(folder: str | Path) -> Corpus:
    """Open a corpus that `build` finished.

    Raises:
        ValueError: there is none, or it is not finished.
    """
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        begun = (folder / "recipe.json").is_file()
        raise ValueError(
            f"a corpus is a folder with a {MANIFEST}: got {str(folder)!r}, "
            + ("whose building was stopped; the same call of build goes on" if begun else "which has none")
        )
    return Corpus(folder, json.loads((folder / MANIFEST).read_text(encoding="utf-8")))


def fits(tokens: Tokenizer | Corpus, config: ZambaConfig) -> None:
    """Check that a model of this config can read a tokenizer's or a corpus's tokens, before any work is done.

    Raises:
        ValueError: the tokenizer has an id that has no row in the model's embedding; or it starts documents with another id
            than the config's `bos_token_id`.
    """
    if tokens.vocab_size > config.vocab_size:
        raise ValueError(
            f"a tokenizer must not have more tokens than the model: got {tokens.vocab_size} tokens, the config's "
            f"vocab_size={config.vocab_size}"
        )
    bos = tokens.manifest["tokenizer"]["bos_id"] if isinstance(tokens, Corpus) else tokens.bos_id
    if config.bos_token_id is not None and bos != config.bos_token_id:
        raise ValueError(
            f"documents must start with the model's token for it: the tokenizer's is {bos}, the config's bos_token_id={config.bos_token_id}"
        )


def file_hash(file: Path) -> str:
    """SHA-256, read a megabyte at a time."""
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
