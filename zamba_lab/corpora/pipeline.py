"""The pipeline: source -> filter -> deduplicate -> tokenise -> pack, in the way of Zyda and Zyda-2, into a folder.

What lies in the folder while it works is in `shards.py`, what is left at the end in `corpus.py`. Killed at any moment, or stopped by
a full disk, and called again with the same arguments, it goes on with the shards that are missing, and ends with the same
bytes; so it does with any number of workers. Deduplication and packing are done by one process, the rest by all.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from zamba_lab.corpora import grams
from zamba_lab.corpora.assemble import assemble
from zamba_lab.corpora.corpus import MANIFEST, Corpus, fits, load
from zamba_lab.corpora.duplicates import THRESHOLD, Duplicates, find_duplicates
from zamba_lab.corpora.shards import Shard, all_shards, batches, filter_batch, place, tokenise_shard
from zamba_lab.corpora.sources import Folder, Source, distinct, source
from zamba_lab.corpora.stdlib import split_of
from zamba_lab.corpora.tokens import train_tokenizer
from zamba_lab.tokenizer import Tokenizer
from zamba_lab.writing import NoLocks, locked, write

if TYPE_CHECKING:
    from zamba_lab.config import ZambaConfig

RECIPE, READ, WORK = "recipe.json", "read.json", "work"
VOCABULARY_TEXT = 50_000_000  # characters of training text that a vocabulary is trained on


def build(
    sources: Source | str | Sequence[Source | str],
    folder: str | Path,
    tokenizer: Tokenizer | int = 2048,
    *,
    config: ZambaConfig | None = None,
    threshold: float = THRESHOLD,
    workers: int = 1,
    shard_size: int = 16_000_000,
) -> Corpus:
    """Make a corpus, or go on where making it was stopped, or open it if it is there.

    Args:
        sources: one or several of `sources.py`, or their names as `source` reads them; of two documents that say the same
            the one of the earlier source stays, then the longer one.
        folder: for the corpus; about twice the text's size on disk while it is made.
        tokenizer: a tokenizer with a start token; or a number of tokens: a byte-level BPE is trained on what is kept.
        config: of the model that is to read it; a tokenizer that does not fit it is refused before any work.
        threshold: the similarity, in (0, 1], from which a document is a near duplicate, see `duplicates.py`.
        workers: processes. They start afresh, so a script that asks for more than one guards its calls with
            `if __name__ == "__main__"`.
        shard_size: bytes of text in a unit of work.

    Raises:
        ValueError: the tokenizer has no start token or does not fit the config; nothing was read, or nothing of it kept;
            the folder has a corpus of another recipe, or lies within one of the sources.
        OSError: a file cannot be read or written, for want of room among others; what is done is kept.
    """
    sources = [sources] if isinstance(sources, str) or not isinstance(sources, Sequence) else sources
    sources, folder = distinct([source(item) if isinstance(item, str) else item for item in sources]), Path(folder)
    for name, value in (("workers", workers), ("shard_size", shard_size)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1: got {value}")
    _check(sources, folder, tokenizer, config, threshold)
    with _locked(folder):
        return _build(sources, folder, tokenizer, _recipe(sources, tokenizer, threshold, shard_size), workers)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder, made if needed, for this process alone."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as lock:
        try:
            lock.enter_context(locked(folder / ".lock"))
        except TimeoutError as error:
            raise ValueError(f"one process at a time builds a corpus: another one is at work in {str(folder)!r}") from error
        except NoLocks as error:
            raise ValueError(f"a corpus is built on a file system with locks: that of {str(folder)!r} has none ({error})") from error
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror or error}; what is done is kept, the same call goes on", error.filename) from error


def _build(sources: list[Source], folder: Path, tokenizer: Tokenizer | int, recipe: dict, workers: int) -> Corpus:
    """All stages that are not done yet."""
    if (known := _known_recipe(folder)) is None:
        write(folder / RECIPE, json.dumps(recipe, indent=1).encode())
    elif changed := sorted(name for name in recipe.keys() | known.keys() if recipe.get(name) != known.get(name)):
        raise ValueError(
            f"a folder holds one corpus: {str(folder)!r} was begun with another recipe; it differs in "
            f"{', '.join(changed)} ({changed[0]}: there {known.get(changed[0])!r:.200}, "
            f"now {recipe.get(changed[0])!r:.200})"
        )
    work = folder / WORK
    if (folder / MANIFEST).is_file():
        shutil.rmtree(work, ignore_errors=True)  # a kill may have come between the manifest and this
        return load(folder)
    work.mkdir(exist_ok=True)
    shards = all_shards(work, _read(sources, work, recipe["shard_size"], workers))
    if not any(shard.paths for shard in shards):
        shutil.rmtree(work)
        (folder / RECIPE).unlink()  # so that the same folder serves when there is something to read
        raise ValueError(_nothing_kept(sources, shards))
    duplicates = _duplicates(shards, recipe["threshold"])
    kept = [np.array([k for k in range(len(shard.paths)) if shard.first + k not in duplicates], dtype=np.int64) for shard in shards]
    if isinstance(tokenizer, int):
        tokenizer = train_tokenizer(_training_texts(shards, kept), tokenizer)
    write(folder / tokenizer.file, tokenizer.to_bytes())
    _tokenise(shards, kept, work, folder, hashlib.sha256(tokenizer.to_bytes()).hexdigest(), workers)
    return assemble(folder, work, sources, shards, duplicates, kept, tokenizer, recipe)


def _check(sources: list[Source], folder: Path, tokenizer: Tokenizer | int, config: ZambaConfig | None, threshold: float) -> None:
    names = [item.name for item in sources]
    if not sources or len(set(names)) < len(names):
        raise ValueError(f"a corpus needs sources, each with a name of its own: got {names}")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is a similarity and must be in (0, 1]: got {threshold}")
    for item in sources:
        if isinstance(item, Folder) and folder.resolve().is_relative_to(Path(item.path).resolve()):
            raise ValueError(f"a corpus must not lie within what it is made of: {str(folder)!r} is in the source {item.path!r}")
    if isinstance(tokenizer, int):
        if config is not None and tokenizer > config.vocab_size:
            raise ValueError(
                f"a tokenizer must not have more tokens than the model: asked for {tokenizer}, the config's vocab_size={config.vocab_size}"
            )
    elif tokenizer.bos_id is None:
        raise ValueError(f"documents are told apart by a start token, and this tokenizer has none: {tokenizer!r}")
    elif config is not None:
        fits(tokenizer, config)


def _recipe(sources: list[Source], tokenizer: Tokenizer | int, threshold: float, shard_size: int) -> dict:
    """All that decides the bytes of the result, as far as it is known before reading."""
    vocabulary = tokenizer if isinstance(tokenizer, int) else hashlib.sha256(tokenizer.to_bytes()).hexdigest()
    return {
        "sources": [[repr(item), item.fingerprint()] for item in sources],
        "tokenizer": vocabulary,
        "threshold": threshold,
        "shard_size": shard_size,
        "unicode": unicodedata.unidata_version,
        "grams": [grams.GRAM, grams.SIGNATURE, grams.BANDS, grams.FORM],
    }


def _known_recipe(folder: Path) -> dict | None:
    file = folder / RECIPE
    if file.is_file():
        return json.loads(file.read_bytes())
    if others := sorted(path.name for path in folder.iterdir() if path.name != ".lock" and path.suffix != ".part"):
        raise ValueError(f"a corpus is made in a folder of its own: {str(folder)!r} holds {', '.join(others[:5])}")
    return None


def _read(sources: list[Source], work: Path, size: int, workers: int) -> int:
    """Read and filter all sources, from the first shard on that is not there; the number of shards."""
    if (work / READ).is_file():
        return json.loads((work / READ).read_bytes())["shards"]
    number = next(n for n in range(10**9) if not (work / f"{n:05}.json").is_file())
    last = Shard(work, number - 1) if number else None
    start = (number, last.source, last.end) if last else ()
    count = number

    def jobs() -> Iterator[tuple]:
        nonlocal count
        for batch in batches(sources, size, *start):
            count = batch.number + 1
            if not (work / f"{batch.number:05}.json").is_file():  # a later one may have been done before an earlier one
                split = getattr(sources[batch.source], "split_of", split_of)
                yield work, batch, sources[batch.source].rules, [split(path) for path, _ in batch.rows]

    _run("read and filter", filter_batch, jobs(), workers)
    write(work / READ, json.dumps({"shards": count}).encode())
    return count


def _nothing_kept(sources: list[Source], shards: list[Shard]) -> str:
    read = sum(shard.read[0] for shard in shards)
    rules = ", ".join(sorted({rule for shard in shards for rule in shard.dropped}))
    gave = f"a corpus needs at least one document: {', '.join(item.name for item in sources)} gave {read}"
    return gave + (f", and the rules dropped them all ({rules})" if read else "")


def _duplicates(shards: list[Shard], threshold: float) -> Duplicates:
    """Among all documents that kept the rules, numbered through the shards."""
    sizes = np.concatenate([shard.sizes for shard in shards])
    rank = np.repeat([shard.source for shard in shards], [len(shard.paths) for shard in shards])
    order = np.lexsort((np.arange(len(sizes)), -sizes, rank)).tolist()
    hashes = [row.tobytes() for shard in shards for row in shard.hashes]

    def text_of(document: int) -> str:
        shard, k = place(shards, document)
        return shard.text(k)

    return find_duplicates(hashes, np.concatenate([shard.keys for shard in shards]), order, text_of, threshold)


def _training_texts(shards: list[Shard], kept: list[np.ndarray]) -> Iterator[str]:
    """The first VOCABULARY_TEXT characters of the training split, and the rest of the document they end in."""
    n_characters = 0
    for shard, numbers in zip(shards, kept):
        for text in shard.texts([k for k in numbers if shard.splits[k] == "train"]):
            yield text
            n_characters += len(text)
            if n_characters >= VOCABULARY_TEXT:
                return


def _tokenise(shards: list[Shard], kept: list[np.ndarray], work: Path, folder: Path, digest: str, workers: int) -> None:
    jobs = (
        (work, shard.number, numbers, folder, digest)
        for shard, numbers in zip(shards, kept)
        if not (work / f"{shard.number:05}.tokens.npz").is_file()
    )
    _run("tokenise", tokenise_shard, jobs, workers, total=sum(int(shard.sizes[numbers].sum()) for shard, numbers in zip(shards, kept)))


def _run(what: str, function: Callable[..., int], jobs: Iterable[tuple], workers: int, total: int | None = None) -> None:
    """Do `function(*job)` for each job, which returns its bytes of text, under a progress bar."""
    from tqdm.auto import tqdm

    with tqdm(desc=what, total=total, unit="B", unit_scale=True, delay=2) as bar:
        for n_bytes in _mapped(function, jobs, workers):
            bar.update(n_bytes)


def _mapped(function: Callable, jobs: Iterable[tuple], workers: int) -> Iterator:
    """`function(*job)` of each job, in order; by `workers` processes, each with a few jobs waiting."""
    if workers == 1:
        yield from (function(*job) for job in jobs)
        return
    one_thread = partial(os.putenv, "TOKENIZERS_PARALLELISM", "false")
    pool, jobs = ProcessPoolExecutor(workers, get_context("spawn"), one_thread), iter(jobs)
    try:
        waiting = deque(pool.submit(function, *job) for job in islice(jobs, 2 * workers))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(function, *job) for job in islice(jobs, 1))
    finally:
        pool.shutdown(cancel_futures=True)
