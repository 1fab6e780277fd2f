"""The last stage: the shards' tokens as one file a split, the list of documents, and the manifest that ends the work."""

import codecs
import csv
import json
import platform
import shutil
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path

import numpy as np

from zamba_lab.corpora import grams
from zamba_lab.corpora.corpus import DOCUMENTS, MANIFEST, Corpus, file_hash, load
from zamba_lab.corpora.duplicates import Duplicates
from zamba_lab.corpora.shards import EXAMPLES, Shard, merge, note, place, tokens_of
from zamba_lab.corpora.sources import Source
from zamba_lab.corpora.stdlib import SPLITS
from zamba_lab.corpora.tokens import dtype_of
from zamba_lab.tokenizer import Tokenizer
from zamba_lab.writing import atomic_file, write

EXACT, NEAR = "exact duplicate", "near duplicate"


def assemble(
    folder: Path,
    work: Path,
    sources: Sequence[Source],
    shards: list[Shard],
    duplicates: Duplicates,
    kept: list[np.ndarray],
    tokenizer: Tokenizer,
    recipe: dict,
) -> Corpus:
    """Write the corpus's files, the manifest last of all; then the work is removed."""
    splits = {split: _pack(folder, work, split, sources, shards, tokenizer) for split in SPLITS}
    _list(folder, work, sources, shards)
    names = [tokenizer.file, DOCUMENTS, *(f"{split}.{what}.npy" for split in SPLITS for what in ("tokens", "starts"))]
    manifest = {
        "python": platform.python_version(),
        "sources": [_described(source) for source in sources],
        "deduplication": {
            "gram": grams.GRAM,
            "form": grams.FORM,
            "signature": grams.SIGNATURE,
            "bands": grams.BANDS,
            "threshold": recipe["threshold"],
            "chance to share a band": {f"{s:.2f}": round(grams.chance(s), 4) for s in (0.7, 0.8, 0.85, 0.9, 0.95)},
        },
        "stages": stages(sources, shards, duplicates, kept),
        "tokenizer": {
            "file": tokenizer.file,
            "vocab_size": tokenizer.vocab_size,
            "bos_id": tokenizer.bos_id,
            "pieces_hash": tokenizer.pieces_hash,
        },
        "splits": splits,
        "files": {name: file_hash(folder / name) for name in names},
    }
    write(folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    for part in folder.glob("*.part"):
        part.unlink(missing_ok=True)
    shutil.rmtree(work)
    return load(folder)


def _pack(folder: Path, work: Path, split: str, sources: Sequence[Source], shards: list[Shard], tokenizer: Tokenizer) -> dict:
    """Write a split's tokens and starts; how many documents, bytes and tokens, also by source. Tokens are copied a shard at a time."""
    lengths, by_source = [np.array([], dtype=np.int64)], {item.name: {"documents": 0, "bytes": 0} for item in sources}
    for shard in shards:
        of_shard, documents = tokens_of(work, shard.number, split, "lengths", "documents")
        lengths.append(of_shard)
        of_source = by_source[sources[shard.source].name]
        of_source["documents"] += len(of_shard)
        of_source["bytes"] += int(shard.sizes[documents].sum())
    ends = np.cumsum(np.concatenate(lengths))
    total = int(ends[-1]) + 1 if len(ends) else 0  # one more `<s>`, which ends the last document
    dtype = np.dtype(dtype_of(tokenizer))
    with atomic_file(folder / f"{split}.tokens.npy") as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (total,)}
        np.lib.format.write_array_header_1_0(file, header)
        for shard in shards:
            file.write(tokens_of(work, shard.number, split, "tokens")[0].tobytes())
        file.write(np.array([tokenizer.bos_id] * bool(total), dtype=dtype).tobytes())
    with atomic_file(folder / f"{split}.starts.npy") as file:
        np.save(file, np.concatenate([[0], ends[:-1]]).astype(np.int64) if total else ends)
    n_bytes = sum(counts["bytes"] for counts in by_source.values())
    return {"documents": len(ends), "bytes": n_bytes, "tokens": total, "sources": by_source}


def _list(folder: Path, work: Path, sources: Sequence[Source], shards: list[Shard]) -> None:
    with atomic_file(folder / DOCUMENTS) as file:
        rows = csv.writer(codecs.getwriter("utf-8")(file, errors="backslashreplace"), lineterminator="\n")
        rows.writerow(["split", "source", "path", "bytes", "sha256"])
        for split in SPLITS:
            for shard in shards:
                for k in tokens_of(work, shard.number, split, "documents")[0]:
                    name, digest = sources[shard.source].name, shard.hashes[k].tobytes().hex()
                    rows.writerow([split, name, shard.paths[k], shard.sizes[k], digest])


def stages(sources: Sequence[Source], shards: list[Shard], duplicates: Duplicates, kept: list[np.ndarray]) -> list[dict]:
    """What each stage left, in documents and bytes, and what it dropped, with examples."""
    dropped: dict[str, dict] = {}
    for shard in shards:
        merge(dropped, shard.dropped)
    exact, near = _noted(shards, duplicates)
    of_exact = exact.get(EXACT, {"documents": 0, "bytes": 0})
    counts = {  # of each shard, after each stage
        "read": [tuple(shard.read) for shard in shards],
        "filter": [(len(shard.paths), int(shard.sizes.sum())) for shard in shards],
        "near duplicates": [(len(numbers), int(shard.sizes[numbers].sum())) for shard, numbers in zip(shards, kept)],
    }

    def stage(name: str, dropped: dict) -> dict:
        documents, n_bytes = map(sum, zip(*counts[name]))
        by_source = dict.fromkeys((source.name for source in sources), 0)
        for shard, (count, _) in zip(shards, counts[name]):
            by_source[sources[shard.source].name] += count
        return {"stage": name, "documents": documents, "bytes": n_bytes, "dropped": dropped, "documents_by_source": by_source}

    filtered = stage("filter", dropped)
    unique = {name: filtered[name] - of_exact[name] for name in ("documents", "bytes")}
    return [stage("read", {}), filtered, {"stage": "exact duplicates", **unique, "dropped": exact}, stage("near duplicates", near)]


def _noted(shards: list[Shard], duplicates: Duplicates) -> tuple[dict, dict]:
    """The exact and the near duplicates as dropped documents, counted, with examples."""
    exact: dict[str, dict] = {}
    near: dict[str, dict] = {}
    rows = [(exact, EXACT, document, keeper, "the same text as") for document, keeper in duplicates.exact.items()]
    for document, (keeper, similarity) in duplicates.near.items():
        rows.append((near, NEAR, document, keeper, f"similarity {similarity:.3f}, linked to"))
    for dropped, rule, document, keeper, how in rows:
        (shard, k), (other, j) = place(shards, document), place(shards, keeper)
        few = dropped.get(rule, {}).get("documents", 0) < EXAMPLES
        note(dropped, rule, shard.paths[k], int(shard.sizes[k]), f"{how} {other.paths[j]}", shard.text(k) if few else "")
    return exact, near


def _described(source: Source) -> dict:
    """A source by its fields; of its rules those that bound something."""
    fields = asdict(source) if is_dataclass(source) else {"name": source.name}
    rules = {name: bounds for name, bounds in vars(source.rules).items() if bounds != (None, None)}
    return {**fields, "kind": type(source).__name__, "rules": rules}
