"""The last stage: the shards' tokens as one file a split, the list of documents, and the manifest that ends the work."""

from __future__ import annotations

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
from zamba_lab.corpora.shards import EXAMPLES, Shard, merge, note, place
from zamba_lab.corpora.sources import Source
from zamba_lab.corpora.stdlib import SPLITS
from zamba_lab.tokenizer import Tokenizer
from zamba_lab.writing import whole, write

EXACT, NEAR = "exact duplicate", "near duplicate"


def assemble(
    folder: Path,
    work: Path,
    sources: Sequence[Source],
    shards: list[Shard],
    found: Duplicates,
    kept: list[np.ndarray],
    tokenizer: Tokenizer,
    recipe: dict,
) -> Corpus:
    """Write the corpus's files, the manifest last of all; then the work is thrown away."""
    splits = {split: _pack(folder, work, split, shards, tokenizer) for split in SPLITS}
    _list(folder, work, sources, shards)
    vocabulary = next(file for name in ("tokenizer.json", "tokenizer.model") if (file := folder / name).is_file())
    names = [vocabulary.name, DOCUMENTS, *(f"{split}.{what}.npy" for split in SPLITS for what in ("tokens", "starts"))]
    manifest = {
        "python": platform.python_version(),
        "sources": [_described(one) for one in sources],
        "deduplication": {
            "gram": grams.GRAM,
            "signature": grams.SIGNATURE,
            "bands": grams.BANDS,
            "threshold": recipe["threshold"],
            "chance to share a band": {f"{s:.2f}": round(grams.chance(s), 4) for s in (0.7, 0.8, 0.85, 0.9, 0.95)},
        },
        "stages": stages(sources, shards, found, kept),
        "tokenizer": {"file": vocabulary.name, "vocab_size": tokenizer.vocab_size, "bos_id": tokenizer.bos_id},
        "splits": splits,
        "files": {name: file_hash(folder / name) for name in names},
    }
    write(folder / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
    for part in folder.glob("*.part"):
        part.unlink(missing_ok=True)
    shutil.rmtree(work)
    return load(folder)


def _pack(folder: Path, work: Path, split: str, shards: list[Shard], tokenizer: Tokenizer) -> dict:
    """Write a split's tokens and starts; what they are. Tokens are copied a shard at a time."""
    lengths, n_bytes = [np.array([], dtype=np.int64)], 0
    for shard in shards:
        with np.load(work / f"{shard.number:05}.tokens.npz") as arrays:
            lengths.append(arrays[f"{split}.lengths"])
            n_bytes += int(shard.sizes[arrays[f"{split}.documents"]].sum())
    ends = np.cumsum(np.concatenate(lengths))
    total = int(ends[-1]) + 1 if len(ends) else 0  # one more `<s>`, which ends the last document
    dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.int32
    with whole(folder / f"{split}.tokens.npy") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": (total,)}
        )
        for shard in shards:
            with np.load(work / f"{shard.number:05}.tokens.npz") as arrays:
                file.write(arrays[f"{split}.tokens"].tobytes())
        file.write(np.array([tokenizer.bos_id] * bool(total), dtype=dtype).tobytes())
    np.save(folder / f"{split}.starts.npy", np.concatenate([[0], ends[:-1]]).astype(np.int64) if total else ends)
    return {"documents": len(ends), "bytes": n_bytes, "tokens": total}


def _list(folder: Path, work: Path, sources: Sequence[Source], shards: list[Shard]) -> None:
    with open(folder / DOCUMENTS, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["split", "source", "path", "bytes", "sha256"])
        for split in SPLITS:
            for shard in shards:
                with np.load(work / f"{shard.number:05}.tokens.npz") as arrays:
                    name = sources[shard.source].name
                    rows.writerows(
                        [split, name, shard.paths[k], shard.sizes[k], shard.hashes[k].tobytes().hex()] for k in arrays[f"{split}.documents"]
                    )


def stages(sources: Sequence[Source], shards: list[Shard], found: Duplicates, kept: list[np.ndarray]) -> list[dict]:
    """What each stage left, in documents and bytes, and what it dropped, with examples."""
    dropped: dict[str, dict] = {}
    for shard in shards:
        merge(dropped, shard.dropped)
    read = [[sum(shard.read[what] for shard in shards if shard.source == at) for what in (0, 1)] for at in range(len(sources))]
    good = [len(shard.paths) for shard in shards], [int(shard.sizes.sum()) for shard in shards]
    left = [len(those) for those in kept], [int(shard.sizes[those].sum()) for shard, those in zip(shards, kept)]
    exact, near = _duplicates_noted(shards, found)
    unique = [sum(good[0]) - exact.get(EXACT, {}).get("documents", 0), sum(good[1]) - exact.get(EXACT, {}).get("bytes", 0)]

    def stage(name: str, documents: int, n_bytes: int, gone: dict, **more: object) -> dict:
        return {"stage": name, "documents": documents, "bytes": n_bytes, "dropped": gone, **more}

    def by_source(counts: list[int]) -> dict[str, int]:
        return {one.name: sum(c for c, shard in zip(counts, shards) if shard.source == at) for at, one in enumerate(sources)}

    return [
        stage(
            "read",
            sum(r[0] for r in read),
            sum(r[1] for r in read),
            {},
            documents_by_source={one.name: r[0] for one, r in zip(sources, read)},
        ),
        stage("filter", sum(good[0]), sum(good[1]), dropped, documents_by_source=by_source(good[0])),
        stage("exact duplicates", *unique, exact),
        stage("near duplicates", sum(left[0]), sum(left[1]), near, documents_by_source=by_source(left[0])),
    ]


def _duplicates_noted(shards: list[Shard], found: Duplicates) -> tuple[dict, dict]:
    exact: dict[str, dict] = {}
    near: dict[str, dict] = {}
    for document, keeper in found.exact.items():
        _note(exact, EXACT, place(shards, document), place(shards, keeper), "the same text as")
    for document, (keeper, similarity) in found.near.items():
        _note(near, NEAR, place(shards, document), place(shards, keeper), f"similarity {similarity:.3f}, linked to")
    return exact, near


def _note(gone: dict, rule: str, document: tuple[Shard, int], keeper: tuple[Shard, int], how: str) -> None:
    (shard, k), (other, j) = document, keeper
    few = gone.get(rule, {}).get("documents", 0) < EXAMPLES
    note(gone, rule, shard.paths[k], int(shard.sizes[k]), f"{how} {other.paths[j]}", shard.text(k) if few else "")


def _described(one: Source) -> dict:
    """A source by its fields; of its rules those that bound something."""
    fields = asdict(one) if is_dataclass(one) else {"name": one.name}
    return {
        **fields,
        "kind": type(one).__name__,
        "rules": {name: bounds for name, bounds in vars(one.rules).items() if bounds != (None, None)},
    }
