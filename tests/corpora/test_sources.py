"""Sources: the same documents in the same order, from any place on; what is wrong is said."""

import builtins
import json
import sys
from types import ModuleType

import pytest

from zamba_lab import corpora
from zamba_lab.corpora import CODE, WEB, Folder, Hub, Stdlib
from zamba_lab.corpora.sources import KNOWN, source

NO_DATASETS = "DATASETS IS NOT INSTALLED: streaming by the library itself was not tested. pip install 'zamba-lab[data]'"


@pytest.fixture
def folder(tmp_path):
    for path, content in {
        "b.txt": b"second",
        "a.txt": b"first",
        "deep/c.md": b"third",
        ".hidden": b"no",
        ".git/x": b"no",
        "bytes.bin": b"\xff\xfe",
    }.items():
        (tmp_path / "texts" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "texts" / path).write_bytes(content)
    return tmp_path / "texts"


def test_a_folder_gives_its_files_by_path(folder):
    assert list(Folder(folder).read()) == [
        ("texts/a.txt", b"first"),
        ("texts/b.txt", b"second"),
        ("texts/bytes.bin", b"\xff\xfe"),
        ("texts/deep/c.md", b"third"),
    ]
    assert [path for path, _ in Folder(folder, "*.txt", name="mine").read()] == ["mine/a.txt", "mine/b.txt"]


def test_the_library_is_what_the_shipped_model_was_made_of_and_more():
    rows = dict(Stdlib().read())
    kept = {document.path: document.text for document in corpora.stdlib_documents()}
    assert kept.items() <= rows.items() and len(rows) > len(kept)
    assert not any(path.startswith("topics/") for path, _ in Stdlib(topics=False).read())


@pytest.mark.parametrize("start", [0, 2, 4, 9])
def test_reading_goes_on_from_any_document(folder, start):
    for name in "abcde":
        (folder / f"{name}.py").write_text(f"{name} = 1\n")
    for one in (Folder(folder), Stdlib(str(folder), topics=False)):
        assert list(one.read(start)) == list(one.read())[start:]


def test_a_fingerprint_changes_with_what_is_read(folder):
    before = Folder(folder).fingerprint()
    assert before == Folder(folder).fingerprint() and before != Folder(folder, "*.txt").fingerprint()
    (folder / "a.txt").write_bytes(b"other")
    assert Folder(folder).fingerprint() != before


def test_a_source_has_a_name(folder):
    assert source("stdlib") == Stdlib() and source("stdlib").rules == CODE
    assert source(str(folder)) == Folder(folder)
    assert source("tinystories", documents=5) == Hub("tinystories", documents=5) and source("tinystories").rules == WEB
    assert source("owner/name:part").config == "part" and source("owner/name").name == "name"
    with pytest.raises(ValueError, match="fineweb-edu, tinystories, zyda-2, a folder"):
        source("nothing-here")


def test_short_names_are_those_of_published_data_sets():
    assert Hub("zyda-2").dataset == "Zyphra/Zyda-2" and Hub("zyda-2").config == "sample-100BT" and Hub("zyda-2").name == "zyda-2"
    assert Hub("fineweb-edu", config="sample-100BT").config == "sample-100BT"
    assert set(KNOWN) == {"zyda-2", "tinystories", "fineweb-edu"}


@pytest.mark.parametrize(
    "make, sentence",
    [
        (lambda: Folder("nothing-here"), "must be there: got 'nothing-here'"),
        (lambda: Hub("x/y", documents=0), "documents must be at least 1"),
    ],
)
def test_what_cannot_be_a_source_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


class Rows(list):
    """What `load_dataset(..., streaming=True)` gives, as far as it is used."""

    def skip(self, n):
        return self[n:]


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the library `datasets`: remembers how it was asked, gives four rows or fails."""
    asked = []
    module = ModuleType("datasets")
    module.rows = Rows({"id": k, "text": f"story {k}"} for k in range(4))

    def load_dataset(*given, **named):
        asked.append((given, named))
        if isinstance(module.rows, Exception):
            raise module.rows
        return module.rows

    module.load_dataset, module.asked = load_dataset, asked
    monkeypatch.setitem(sys.modules, "datasets", module)
    return module


def test_a_data_set_is_streamed_from_any_row(hub):
    one = Hub("zyda-2", documents=3)
    assert list(one.read()) == [(f"zyda-2/{k}", f"story {k}") for k in range(3)]
    assert list(one.read(2)) == [("zyda-2/2", "story 2")] and list(one.read(3)) == []
    assert hub.asked[0] == (("Zyphra/Zyda-2", "sample-100BT"), {"split": "train", "data_files": None, "revision": None, "streaming": True})


def test_a_column_that_is_not_there_is_named(hub):
    with pytest.raises(ValueError, match="text='content', the columns are id, text"):
        next(Hub("x/y", text="content").read())


def test_without_a_network_it_says_what_to_do(hub):
    hub.rows = ConnectionError("no route to host")
    with pytest.raises(ValueError, match="ConnectionError: no route to host. Without a network use Folder"):
        next(Hub("tinystories").read())


def test_without_the_library_it_says_what_to_install(monkeypatch):
    real = builtins.__import__
    monkeypatch.delitem(sys.modules, "datasets", raising=False)
    monkeypatch.setattr(
        builtins,
        "__import__",
        lambda name, *rest: (_ for _ in ()).throw(ModuleNotFoundError(name=name)) if name == "datasets" else real(name, *rest),
    )
    with pytest.raises(ModuleNotFoundError, match="zamba-lab\\[data\\]"):
        next(Hub("tinystories").read())


def test_the_library_itself_says_that_there_is_no_network():
    pytest.importorskip("datasets", reason=NO_DATASETS)
    with pytest.raises(ValueError, match="'roneneldan/TinyStories' cannot be streamed: .*Without a network"):
        next(Hub("tinystories").read())  # tests run with HF_HUB_OFFLINE


def test_local_files_are_streamed_by_the_library_itself(tmp_path, monkeypatch):
    pytest.importorskip("datasets", reason=NO_DATASETS)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for part in range(2):
        rows = [{"text": f"part {part} row {k}"} for k in range(3)]
        (tmp_path / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    one = Hub("json", files=str(tmp_path / "*.jsonl"))
    texts = [text for _, text in one.read()]
    assert texts == [f"part {part} row {k}" for part in range(2) for k in range(3)]
    assert [text for _, text in one.read(4)] == texts[4:]
    assert one.fingerprint() != Hub("json", files=str(tmp_path / "0.jsonl")).fingerprint()
