"""Where documents come from. A source is a small value; the order of a list of sources says which of two copies is kept.

    Stdlib()                            the running interpreter's standard library: on every machine, without a network
    Installed()                         the packages that this project stands on; Installed("docstrings"): their prose
    Folder("texts", glob="**/*.md")     files, one document each
    Hub("tinystories", documents=10_000)    rows of a data set of the hub, streamed; also local parquet or JSON files

Each has `name`, `rules` (see `quality.py`), `read(start)` and `fingerprint()`. `read` yields (path, content) from document
number `start` on, in the same order each time; the pipeline decodes bytes, and drops what is not UTF-8. Which files of a folder
are read is the rule of `tokenizer/texts.py`. `fingerprint` changes when what `read` yields does, as far as that can be told
without reading. A source may have `split_of(path)`, which says a document's split; if it has none the hash of the path does.
"""

import hashlib
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from glob import glob
from itertools import islice
from pathlib import Path
from typing import Protocol

from zamba_lab.corpora.installed import DOCSTRINGS, Installed
from zamba_lab.corpora.quality import CODE, PLAIN, WEB, Rules
from zamba_lab.corpora.stdlib import stdlib_sources
from zamba_lab.lazy import needed
from zamba_lab.tokenizer.texts import text_files


class Source(Protocol):
    """What the pipeline asks of a source."""

    name: str
    rules: Rules

    def read(self, start: int = 0) -> Iterator[tuple[str, str | bytes]]: ...

    def fingerprint(self) -> str: ...


@dataclass(frozen=True)
class Stdlib:
    """The standard library and the language's help topics, before any removal of duplicates; paths as in `stdlib_documents`."""

    root: str | None = None  # folder of the .py files; None: the running interpreter's
    topics: bool = True  # with the help topics
    name: str = "stdlib"
    rules: Rules = CODE

    def read(self, start: int = 0) -> Iterator[tuple[str, str]]:
        documents = stdlib_sources(self.root, None if self.topics else {})
        return islice(((document.path, document.text) for document in documents), start, None)

    def fingerprint(self) -> str:
        return f"python {platform.python_version()}" if self.root is None else _hash(text_files(self.root, "**/*.py"))


@dataclass(frozen=True)
class Folder:
    """The files of a folder that match a pattern, sorted by path, one document each; see `texts.text_files`."""

    path: str
    glob: str = "**/*"
    name: str | None = None  # None: the folder's own name
    rules: Rules = PLAIN

    def __post_init__(self) -> None:
        if not Path(self.path).is_dir():
            raise ValueError(f"a folder of texts must be there: got {str(self.path)!r}")
        object.__setattr__(self, "path", str(self.path))
        object.__setattr__(self, "name", self.name or Path(self.path).resolve().name)

    def read(self, start: int = 0) -> Iterator[tuple[str, bytes]]:
        for file in text_files(self.path, self.glob)[start:]:
            yield f"{self.name}/{file.relative_to(self.path).as_posix()}", file.read_bytes()

    def fingerprint(self) -> str:
        return _hash(text_files(self.path, self.glob))


@dataclass(frozen=True)
class Hub:
    """The rows of a data set that the library `datasets` streams: by its id, by a short name, or from local files.

    Hub("zyda-2", documents=1_000_000)                       one of KNOWN
    Hub("HuggingFaceFW/fineweb-2", config="deu_Latn")        any other
    Hub("parquet", files="dump/*.parquet")                   local; also "json", "text", "csv"
    """

    dataset: str
    config: str | None = None
    split: str = "train"
    text: str = "text"  # the column that is the document
    documents: int | None = None  # stop after so many
    revision: str | None = None  # a branch, tag or commit; a commit makes a resumed run safe against changes
    files: str | None = None
    name: str | None = None  # None: the last part of the id
    rules: Rules = WEB

    def __post_init__(self) -> None:
        if known := KNOWN.get(self.dataset):
            object.__setattr__(self, "name", self.name or self.dataset)
            object.__setattr__(self, "config", self.config or known.config)
            object.__setattr__(self, "dataset", known.dataset)
        if self.documents is not None and self.documents < 1:
            raise ValueError(f"documents must be at least 1, or None for all: got {self.documents}")
        object.__setattr__(self, "name", self.name or self.dataset.rsplit("/", 1)[-1].lower())

    def read(self, start: int = 0) -> Iterator[tuple[str, str]]:
        rows = self._rows(start)
        for at, row in enumerate(rows if self.documents is None else islice(rows, max(0, self.documents - start)), start):
            if self.text not in row:
                raise ValueError(
                    f"the text of {self.dataset!r} must be one of its columns: got text={self.text!r}, the columns are {', '.join(row)}"
                )
            if not isinstance(row[self.text], str | None):
                raise ValueError(
                    f"a document must be text: row {at} of {self.dataset!r} has {type(row[self.text]).__name__} {row[self.text]!r:.80} "
                    f"in its column {self.text!r}"
                )
            yield f"{self.name}/{at}", row[self.text] or ""

    def _rows(self, start: int) -> Iterator[dict]:
        load_dataset = needed("datasets", "streaming a data set", "data").load_dataset
        try:
            stream = load_dataset(
                self.dataset, self.config, split=self.split, data_files=self.files, revision=self.revision, streaming=True
            )
            yield from stream.skip(start) if start else stream
        except Exception as error:  # the library passes on the errors of the libraries under it
            raise ValueError(
                f"{self.dataset!r} cannot be streamed: {type(error).__name__}: {str(error)[:300]}. Without a "
                "network use Folder or Stdlib, or Hub('parquet', files=...) of files that are here; what was read so "
                "far is kept, and the same call goes on from there"
            ) from error

    def fingerprint(self) -> str:
        return f"revision {self.revision}" if self.files is None else _hash(map(Path, sorted(glob(self.files, recursive=True))))


KNOWN: dict[str, Hub] = {}
KNOWN |= {
    "zyda-2": Hub("Zyphra/Zyda-2", "sample-100BT"),
    "tinystories": Hub("roneneldan/TinyStories"),
    "fineweb-edu": Hub("HuggingFaceFW/fineweb-edu", "sample-10BT"),
}


def source(text: str, documents: int | None = None) -> Source:
    """A source by its name: "stdlib", "installed", "docstrings" (of the installed packages), a short name of KNOWN, an existing
    folder, or a hub id "owner/name[:config]".

    documents: how many rows of a hub data set to read; None: all. Raises ValueError for anything else.
    """
    if text == "stdlib":
        return Stdlib()
    if text in ("installed", DOCSTRINGS):
        return Installed(DOCSTRINGS) if text == DOCSTRINGS else Installed()
    if Path(text).is_dir():
        return Folder(text)
    dataset, _, config = text.partition(":")
    if dataset in KNOWN or "/" in dataset.strip("/."):
        return Hub(dataset, config or None, documents=documents)
    raise ValueError(
        f"a source is 'stdlib', 'installed', 'docstrings', one of {', '.join(sorted(KNOWN))}, a folder that is there, or a hub id "
        f"owner/name[:config]: got {text!r}"
    )


def distinct_names(paths: Sequence[str | Path], taken: Sequence[str] = ()) -> list[str]:
    """A name for each folder: its last part, or as many of its last parts as tell it from other folders and from names
    that are taken. The same folder twice has the same name twice."""
    parts = [Path(path).resolve().parts for path in paths]
    lengths = [1] * len(parts)
    for _ in range(max(map(len, parts), default=0)):
        names = [Path(*part[-n:]).as_posix() for part, n in zip(parts, lengths)]
        counts = Counter([*names, *taken])
        lengths = [n + (counts[name] > parts.count(part)) for part, n, name in zip(parts, lengths, names)]
    return [Path(*part[-n:]).as_posix() for part, n in zip(parts, lengths)]


def distinct(sources: Sequence[Source]) -> list[Source]:
    """The same sources; folders that were named by their last part have names of their own by `distinct_names`."""
    unnamed = [item for item in sources if isinstance(item, Folder) and item.name == Path(item.path).resolve().name]
    taken = [item.name for item in sources if item not in unnamed]
    names = iter(distinct_names([item.path for item in unnamed], taken))
    return [replace(item, name=next(names)) if item in unnamed else item for item in sources]


def _hash(files: Iterable[Path]) -> str:
    """Of the names, sizes and times of the files."""
    rows = [(str(file), (facts := file.stat()).st_size, facts.st_mtime_ns) for file in files]
    return hashlib.sha256(repr(rows).encode()).hexdigest()
