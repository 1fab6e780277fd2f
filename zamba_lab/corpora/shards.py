"""The work between source and token files, a shard at a time: some megabytes of one source's documents.

    00000.text, 00000.npz, 00000.json      the documents that kept the rules: UTF-8, one after the other; where each ends, its
                                           hash and its band keys; names, and what was dropped, with examples
    00000.tokens.npz                       their tokens, by split, of those that no duplicate rule dropped

A shard's last file is written last and atomically: if it is there, the shard is done. Shards do not depend on each other or on
who makes them, so any number of processes may.
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from zamba_lab.corpora.grams import band_keys, signatures
from zamba_lab.corpora.quality import Rules, broken_rule
from zamba_lab.corpora.sources import Source
from zamba_lab.corpora.stdlib import SPLITS
from zamba_lab.corpora.tokens import dtype_of, encode
from zamba_lab.tokenizer import Tokenizer
from zamba_lab.tokenizer import texts as reading
from zamba_lab.writing import atomic_file, write

EXAMPLES = 3  # of dropped documents, for each rule
EXCERPT = 160  # characters of each


@dataclass(frozen=True)
class Batch:
    """The documents of one shard as they were read. `end`: where its source goes on."""

    number: int
    source: int
    start: int
    rows: Sequence[tuple[str, str | bytes]]

    @property
    def end(self) -> int:
        return self.start + len(self.rows)


def batches(sources: Sequence[Source], size: int, number: int = 0, source: int = 0, start: int = 0) -> Iterator[Batch]:
    """All documents from a place on, in shards of at least `size` bytes or characters; each of one source.

    number: of the first shard. source, start: the place of its first document.
    """
    for at in range(source, len(sources)):
        rows, n_bytes, first = [], 0, start if at == source else 0
        for row in sources[at].read(first):
            rows.append(row)
            n_bytes += len(row[1])
            if n_bytes >= size:
                yield Batch(number, at, first, rows)
                number, first, rows, n_bytes = number + 1, first + len(rows), [], 0
        if rows:
            yield Batch(number, at, first, rows)
            number += 1


def filter_batch(work: Path, batch: Batch, rules: Rules, splits: Sequence[str]) -> int:
    """Decode, measure, hash and sign a batch; its shard's files. Returns the number of bytes read.

    splits: of its documents, one each.
    """
    texts, paths, kept_splits, ends, hashes, dropped = [], [], [], [0], [], {}
    n_bytes = 0
    for (path, content), split in zip(batch.rows, splits, strict=True):
        text, broken = decoded(content)
        data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
        n_bytes += len(data)
        if broken := broken or broken_rule(text, rules):
            note(dropped, broken[0], path, len(data), broken[1], text)
            continue
        data = text.encode()
        texts.append(text)
        paths.append(path)
        kept_splits.append(split)
        ends.append(ends[-1] + len(data))
        hashes.append(hashlib.sha256(data).digest())
    keys = band_keys(signatures(texts, len(texts)))
    write(work / f"{batch.number:05}.text", "".join(texts).encode())
    write_arrays(
        work / f"{batch.number:05}.npz",
        ends=np.array(ends),
        keys=keys,
        hashes=np.frombuffer(b"".join(hashes), dtype=np.uint8).reshape(-1, 32),
    )
    facts = {"source": batch.source, "end": batch.end, "read": [len(batch.rows), n_bytes], "dropped": dropped}
    facts |= {"paths": paths, "splits": kept_splits}
    write(work / f"{batch.number:05}.json", json.dumps(facts).encode())
    return n_bytes


def decoded(content: str | bytes) -> tuple[str, tuple[str, str] | None]:
    """The text of a document and None, or what can be read of it and the rule that it breaks."""
    try:
        if isinstance(content, bytes):
            return reading.decode(content), None
        content.encode()
        return content, None
    except UnicodeDecodeError as error:
        return content.decode("utf-8", "replace"), ("not UTF-8", f"byte {content[error.start]:#04x} at {error.start}")
    except UnicodeEncodeError as error:
        return content, ("not UTF-8", f"half a surrogate pair at character {error.start}")


def note(dropped: dict, rule: str, path: str, n_bytes: int, why: str, text: str) -> None:
    """Count a dropped document, and keep it as an example if there are few."""
    merge(dropped, {rule: {"documents": 1, "bytes": n_bytes, "examples": [{"path": path, "why": why, "text": text[:EXCERPT]}]}})


def merge(dropped: dict, more: Mapping) -> None:
    """Add more dropped documents: of each rule their number, bytes and the first EXAMPLES."""
    for rule, counts in more.items():
        entry = dropped.setdefault(rule, {"documents": 0, "bytes": 0, "examples": []})
        entry["documents"] += counts["documents"]
        entry["bytes"] += counts["bytes"]
        entry["examples"] = (entry["examples"] + counts["examples"])[:EXAMPLES]


class Shard:
    """The documents of a shard that kept the rules."""

    def __init__(self, work: Path, number: int, first: int = 0):
        """Args: first: the number of its first document, counted through all shards."""
        self.number, self.first, self._text = number, first, work / f"{number:05}.text"
        facts = json.loads((work / f"{number:05}.json").read_bytes())
        self.source, self.end, self.read = facts["source"], facts["end"], facts["read"]
        self.dropped, self.paths, self.splits = facts["dropped"], facts["paths"], facts["splits"]
        with np.load(work / f"{number:05}.npz") as arrays:
            self.ends, self.keys, self.hashes = arrays["ends"], arrays["keys"], arrays["hashes"]
        self.sizes = np.diff(self.ends)  # bytes of each document

    def text(self, k: int) -> str:
        """Document k, read without the others."""
        with open(self._text, "rb") as file:
            file.seek(self.ends[k])
            return file.read(self.ends[k + 1] - self.ends[k]).decode()

    def texts(self, wanted: Sequence[int]) -> Iterator[str]:
        """Some documents; all are read."""
        content = self._text.read_bytes()
        for k in wanted:
            yield content[self.ends[k] : self.ends[k + 1]].decode()


def all_shards(work: Path, count: int) -> list[Shard]:
    """The first `count` shards, their documents numbered through."""
    shards: list[Shard] = []
    for number in range(count):
        shards.append(Shard(work, number, shards[-1].first + len(shards[-1].paths) if shards else 0))
    return shards


def place(shards: Sequence[Shard], document: int) -> tuple[Shard, int]:
    """The shard of a document, and its number there."""
    shard = shards[bisect_right(shards, document, key=lambda shard: shard.first) - 1]
    return shard, document - shard.first


def tokenise_shard(work: Path, number: int, kept: np.ndarray, folder: Path, digest: str) -> int:
    """Write the tokens of the kept documents of a shard; the bytes of text that they stand for.

    kept: their numbers in the shard, ascending. folder: of the tokenizer's file. digest: the file's hash.
    """
    tokenizer, shard = _tokenizer(folder, digest), Shard(work, number)
    bos = np.array([tokenizer.bos_id], dtype=dtype_of(tokenizer))
    tokens: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    which: dict[str, list[int]] = {split: [] for split in SPLITS}
    for k, text in zip(kept, shard.texts(kept)):
        split = shard.splits[k]
        tokens[split].append(np.concatenate([bos, encode(text, tokenizer)]))
        which[split].append(int(k))
    arrays = {}
    for split, parts in tokens.items():
        arrays[f"{split}.tokens"] = np.concatenate([bos[:0], *parts])
        arrays[f"{split}.lengths"] = np.array([len(part) for part in parts], dtype=np.int64)
        arrays[f"{split}.documents"] = np.array(which[split], dtype=np.int64)
    write_arrays(work / f"{number:05}.tokens.npz", **arrays)
    return int(shard.sizes[kept].sum())


@lru_cache(1)  # a process works on one corpus
def _tokenizer(folder: Path, digest: str) -> Tokenizer:
    return Tokenizer.load(folder)


def tokens_of(work: Path, number: int, split: str, *names: str) -> list[np.ndarray]:
    """What `tokenise_shard` wrote of a split, by name: "tokens", the "lengths" of its documents, and "documents", their numbers."""
    with np.load(work / f"{number:05}.tokens.npz") as arrays:
        return [arrays[f"{split}.{name}"] for name in names]


def write_arrays(file: Path, **arrays: np.ndarray) -> None:
    with atomic_file(file) as out:
        np.savez(out, **arrays)
