"""Real text that is on every machine: the running interpreter's standard library, as documents.

The filter, the removal of duplicates and the split are here; tokens are made in `tokens.py`. The project stores no text: a
manifest of paths and hashes records what was read, and `check` says where another Python version reads something else.

Kept: `Lib/**/*.py` and the language reference that `help()` prints (`pydoc_data.topics`), one document a topic.
Dropped, and why:
    tests, idle_test         long tables of cases, little of it prose or program
    site-packages            differs from machine to machine
    encodings/               tables of characters and a hundred copies of one small class
    html/entities.py, stringprep.py     tables
    pydoc_data/topics.py     the topics again, as one escaped string
    config-*, _sysconfigdata*           written while Python was built: they hold paths of that machine
    licence headers          one text over and over; a comment block before the first statement
    near duplicates          they would let training text into the held-out set
"""

import hashlib
import json
import os
import platform
import sysconfig
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from zamba_lab.corpora.programs import python_text, tidy

SPLITS = {"test": 0.06, "validation": 0.04, "train": 0.90}
DROPPED_FOLDERS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__", "encodings"}
DROPPED_FILES = {"html/entities.py", "stringprep.py", "pydoc_data/topics.py"}
DROPPED_STARTS = ("config-", "_sysconfigdata")


@dataclass(frozen=True)
class Document:
    """One text of the corpus: its path, its text and its split, by the path's hash unless it is given."""

    path: str
    text: str
    split: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "split", self.split or split_of(self.path))

    @property
    def n_bytes(self) -> int:
        return len(self.text.encode())

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def split_of(path: str) -> str:
    """The split of a document, from the hash of its path alone."""
    at = int(hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()[:8], 16) / 2**32
    for name, share in SPLITS.items():
        if at < share:
            return name
        at -= share
    return "train"


def stdlib_documents(root: str | Path | None = None, topics: dict[str, str] | None = None) -> list[Document]:
    """Read, filter and deduplicate the corpus.

    Args:
        root: folder of the `.py` files; the running interpreter's standard library if None.
        topics: name -> text of the prose; `pydoc_data.topics` if None.

    Returns:
        the documents that are kept, sorted by path.

    Raises:
        ValueError: there is no `.py` file to read (a Python whose library is inside a zip file, for one).
    """
    return sorted(deduplicate(stdlib_sources(root, topics)), key=lambda document: document.path)


def stdlib_sources(root: str | Path | None = None, topics: dict[str, str] | None = None) -> list[Document]:
    """The same before duplicates are removed: the sources by path, then the prose. Arguments and errors as there."""
    root = Path(sysconfig.get_path("stdlib") if root is None else root)
    if topics is None:
        from pydoc_data.topics import topics
    sources = list(_sources(root))
    if not sources:
        raise ValueError(f"the standard library must be a folder of .py files: got none under {root}")
    return sources + [Document(f"topics/{name}", tidy(text)) for name, text in topics.items()]


def _sources(root: Path) -> Iterator[Document]:
    files = []
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name not in DROPPED_FOLDERS]  # site-packages may be enormous
        files += [Path(folder, name) for name in names if name.endswith(".py")]
    for file in sorted(files):
        path = file.relative_to(root)
        if path.parts[0].startswith(DROPPED_STARTS):
            continue
        if path.as_posix() in DROPPED_FILES:
            continue
        try:
            yield Document(path.as_posix(), python_text(file.read_bytes()))
        except UnicodeDecodeError:
            continue


def deduplicate(documents: Iterable[Document], share: float = 0.5, long_line: int = 25) -> list[Document]:
    """Drop each document of whose long lines more than `share` stand in a larger document that was kept.

    The largest come first, so that a small file inside a large one is the one to go; an empty document goes too. Lines are
    compared in Unicode's form NFC.
    """
    seen_texts: set[str] = set()
    seen_lines: set[str] = set()
    kept = []
    for document in sorted(documents, key=lambda document: (-len(document.text), document.path)):
        text = unicodedata.normalize("NFC", document.text)
        lines = {line for line in map(str.strip, text.splitlines()) if len(line) >= long_line}
        near = len(lines & seen_lines) > share * len(lines)
        if text in seen_texts or near or not text.strip():
            continue
        seen_texts.add(text)
        seen_lines |= lines
        kept.append(document)
    return kept


def texts(documents: Iterable[Document], split: str) -> list[str]:
    """The texts of one split: "train", "validation" or "test"."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {sorted(SPLITS)}: got {split!r}")
    return [document.text for document in documents if document.split == split]


def manifest(documents: Iterable[Document]) -> dict:
    """What was read: the Python version, and [path, split, bytes, sha256] of each document, as it was after the filter."""
    rows = [[document.path, document.split, document.n_bytes, document.sha256] for document in documents]
    totals = {
        split: {"documents": sum(row[1] == split for row in rows), "bytes": sum(row[2] for row in rows if row[1] == split)}
        for split in SPLITS
    }
    return {"python": platform.python_version(), "splits": totals, "documents": rows}


def save_manifest(documents: Iterable[Document], file: str | Path) -> None:
    """Write the manifest as JSON, one document a line."""
    content = manifest(documents)
    rows = ",\n".join(json.dumps(row) for row in content.pop("documents"))
    Path(file).write_text(json.dumps(content)[:-1] + ', "documents": [\n' + rows + "\n]}\n", encoding="utf-8")


def check(documents: Iterable[Document], file: str | Path) -> str:
    """Compare the documents read here with a saved manifest.

    Returns:
        an empty string if they are the same, or a sentence that says how they differ: numbers measured on other
        documents are not comparable to the last digit.
    """
    known = json.loads(Path(file).read_text(encoding="utf-8"))
    there = {path: sha256 for path, _, _, sha256 in known["documents"]}
    here = {document.path: document.sha256 for document in documents}
    if here == there:
        return ""
    changed = sum(here[path] != there[path] for path in here.keys() & there.keys())
    return (
        f"this is not the corpus of {file}: read by Python {platform.python_version()}, written by {known['python']}; "
        f"{len(there.keys() - here.keys())} documents missing, {len(here.keys() - there.keys())} new, {changed} changed, "
        f"{len(here.keys() & there.keys()) - changed} the same"
    )
