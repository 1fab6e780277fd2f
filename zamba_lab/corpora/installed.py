"""The packages of the light set, as they are installed: their programs as code, their docstrings as prose.

    corpora.build([Installed(), Installed("docstrings")], "runs/installed", tokenizer=2048)

`constraints.txt` pins the versions, so anybody who installs with it can make the same corpus; the project stores no text but a
manifest of versions and hashes (`data/installed.json`), and `Installed.check` says where an installation differs.

Split by package first: nothing of the packages of HELD_OUT is ever trained on, all of it is the split "test". Of the others one file
in 25 is the split "validation", by the hash of its path. The docstrings of a file are in the split of the file.

Dropped: tests, vendored copies, generated files (see `programs.py`), files that name a build (`__config__.py`, `_version.py`), licence
headers. Rules and removal of duplicates are the pipeline's. A docstring that stands in several places is read once.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from itertools import islice
from pathlib import Path

from zamba_lab import resources
from zamba_lab.corpora.programs import docstrings, is_generated, python_text, tidy, written_for_others
from zamba_lab.corpora.quality import CODE, PLAIN, Rules, broken_rule
from zamba_lab.corpora.stdlib import Document, split_of

CODE_TEXT, DOCSTRINGS = "code", "docstrings"
# Of what `pip install zamba-lab` brings, all that has 100 kB of programs of its own and is there on every system.
PACKAGES = (
    *("torch", "sympy", "scipy", "pandas", "statsmodels", "numpy", "plotly", "networkx", "debugpy", "Pygments", "huggingface_hub"),
    *("setuptools", "narwhals", "ipython", "wcwidth", "mpmath", "prompt_toolkit", "duckdb", "tornado", "jedi", "jupyter_server", "patsy"),
    *("fsspec", "filelock", "bleach", "anyio", "Jinja2", "packaging", "babel", "click", "pyarrow", "urllib3", "pyzmq", "beautifulsoup4"),
    *("formulaic", "jupyter_client", "psutil", "ipykernel", "lark", "cffi", "idna", "psygnal", "python-dateutil", "traitlets", "arrow"),
    *("httpx", "httpcore", "nbconvert", "jupyterlab", "parso", "pycparser", "ipywidgets", "PyYAML", "requests", "soupsieve", "mistune"),
    *("prometheus_client", "attrs", "charset-normalizer", "wrapt", "nbformat", "platformdirs", "typing_extensions", "tqdm", "jsonschema"),
    *("jupyterlab_server", "websocket-client", "einops", "tinycss2"),
)
# By the folder that they install. One of each kind: numbers, statistics, a network, a language, the analysis of programs, documents.
HELD_OUT = ("mpmath", "patsy", "tornado", "jinja2", "jedi", "nbconvert")
OF_A_BUILD = ("__config__.py", "_version.py", "version.py", "_generated_version.py", "_sysconfigdata")
WORDS = 6  # of the shortest docstring that is prose


@dataclass(frozen=True)
class Installed:
    """A source: the `.py` files of PACKAGES, or their docstrings, one document a file; in both the path below site-packages.

    Raises ValueError for another kind of text; so does `read` if a package is not installed.
    """

    text: str = CODE_TEXT  # or "docstrings"
    packages: tuple[str, ...] = PACKAGES
    name: str | None = None  # None: the kind of text
    rules: Rules | None = None  # None: CODE for code, PLAIN for docstrings

    def __post_init__(self) -> None:
        if self.text not in (CODE_TEXT, DOCSTRINGS):
            raise ValueError(f"text must be {CODE_TEXT!r} or {DOCSTRINGS!r}: got {self.text!r}")
        object.__setattr__(self, "name", self.name or self.text)
        object.__setattr__(self, "rules", self.rules or (CODE if self.text == CODE_TEXT else PLAIN))

    def read(self, start: int = 0) -> Iterator[tuple[str, str]]:
        return islice(self._rows(), start, None)

    def _rows(self, split: str | None = None) -> Iterator[tuple[str, str]]:
        """All documents, or those of one split, of which alone the files are read."""
        wanted = (lambda path: True) if split is None else lambda path: self.split_of(path) == split
        programs = (row for package in self.packages for row in _programs(package, wanted))
        return programs if self.text == CODE_TEXT else _prose(programs)

    def split_of(self, path: str) -> str:
        """ "test" for all of HELD_OUT, "validation" for one in 25 of the other files, "train" for the rest."""
        if path.split("/")[0] in HELD_OUT:
            return "test"
        return "validation" if split_of(path) == "validation" else "train"

    def fingerprint(self) -> str:
        versions = ", ".join(f"{name} {number}" for name, number in self.versions().items())
        return f"{versions}; held out {', '.join(HELD_OUT)}"

    def versions(self) -> dict[str, str]:
        """The installed versions. Raises ValueError if a package is not installed."""
        return {package: _version(package) for package in self.packages}

    def documents(self, split: str) -> list[Document]:
        """Those of a split that keep the rules, near duplicates among them; they carry the split. Some seconds.

        Other splits are not read, so a docstring that stands there, too, is among these.
        """
        return [Document(path, text, split) for path, text in self._rows(split) if broken_rule(text, self.rules) is None]

    def check(self, file: str | Path | None = None) -> str:
        """Compare what is installed with the manifest, by version and then by the hash of the programs; some seconds.

        Returns:
            an empty string, or a sentence that says which packages differ and what to do.
        """
        known = json.loads(Path(file or resources.folder("data") / "installed.json").read_text(encoding="utf-8"))["packages"]
        versions = {name: number for name, number in self.versions().items() if name in known}
        other = [
            f"{name} {number} (there {known[name]['version']})" for name, number in versions.items() if number != known[name]["version"]
        ]
        same = [name for name, number in versions.items() if number == known[name]["version"]]
        changed = [name for name in same if _facts(name) != known[name]]
        new = [name for name in self.packages if name not in known]
        reasons = [
            *([f"other versions: {', '.join(other)}; pip install -c constraints.txt brings those of the manifest"] if other else []),
            *([f"other files in the same version: {', '.join(changed)}"] if changed else []),
            *([f"not in the manifest: {', '.join(new)}"] if new else []),
        ]
        return f"this is not the corpus of the manifest: {'; '.join(reasons)}" if reasons else ""


def differences(sources: Iterable) -> str:
    """`check` of the first of these sources that is of installed packages; an empty string if none is."""
    return next((source.check() for source in sources if isinstance(source, Installed)), "")


def save_manifest(file: str | Path, packages: tuple[str, ...] = PACKAGES) -> None:
    """Write each package's version, number of documents, bytes and hash, one package a line; no text."""
    rows = ",\n".join(f"  {json.dumps(package)}: {json.dumps(_facts(package))}" for package in packages)
    head = f'{{"python": "{platform.python_version()}", "held_out": {json.dumps(HELD_OUT)}, "packages": {{\n'
    Path(file).write_text(f"{head}{rows}\n}}}}\n", encoding="utf-8")


def _facts(package: str) -> dict:
    digest, count, n_bytes = hashlib.sha256(), 0, 0
    for path, text in _programs(package):
        content = text.encode("utf-8", "surrogatepass")
        digest.update(f"{hashlib.sha256(content).hexdigest()}  {path}\n".encode())
        count, n_bytes = count + 1, n_bytes + len(content)
    return {"version": _version(package), "documents": count, "bytes": n_bytes, "sha256": digest.hexdigest()}


def _version(package: str) -> str:
    """Without the part that names a build, such as "+cpu"."""
    try:
        return version(package).split("+")[0]
    except PackageNotFoundError as error:
        raise ValueError(
            f"the corpus of installed packages needs {package}, which is not installed: pip install -c constraints.txt {package}"
        ) from error


def _programs(package: str, wanted: Callable[[str], bool] = lambda path: True) -> Iterator[tuple[str, str]]:
    """The files of a package that are kept, sorted by path; those whose path is wanted."""
    _version(package)
    files = {file.as_posix(): file for file in distribution(package).files or [] if file.suffix == ".py" and ".." not in file.parts}
    for path in sorted(files):
        if not wanted(path) or not written_for_others(path) or files[path].name.startswith(OF_A_BUILD):
            continue
        try:
            text = python_text(files[path].locate().read_bytes())
        except (UnicodeDecodeError, FileNotFoundError):  # another encoding; a file that was deleted after it was installed
            continue
        if not is_generated(text):
            yield path, text


def _prose(programs: Iterator[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Each program's docstrings of WORDS words and more, but those that stood in an earlier one, two blank lines apart."""
    seen: set[str] = set()
    for path, source in programs:
        texts = []
        for text in docstrings(source):
            if len(text.split()) >= WORDS and text not in seen:
                seen.add(text)
                texts.append(text)
        if texts:
            yield path, tidy("\n\n\n".join(texts))
