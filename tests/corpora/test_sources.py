"""Sources: the same documents in the same order, from any place on; what is wrong is said."""

import json
import sys
from types import ModuleType

import pytest

from zamba_lab import corpora
from zamba_lab.corpora import CODE, WEB, Folder, Hub, Stdlib
from zamba_lab.corpora.sources import KNOWN, distinct, source
from zamba_lab.tokenizer import texts

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


def test_documents_behind_links_are_read_once_and_hidden_ones_never(folder):
    elsewhere = folder.parent / "elsewhere"
    (elsewhere / "below").mkdir(parents=True)
    (elsewhere / "below" / "d.txt").write_bytes(b"linked")
    (elsewhere / ".ipynb_checkpoints").mkdir()
    for hidden in (elsewhere / ".ipynb_checkpoints" / "x", elsewhere / ".env", elsewhere / ".DS_Store", folder / "deep" / ".DS_Store"):
        hidden.write_bytes(b"\x00\xff")
    before = [path for path, _ in Folder(folder).read()]
    (folder / "0link").symlink_to(elsewhere, target_is_directory=True)
    (folder / "file.txt").symlink_to(elsewhere / "below" / "d.txt")
    (folder / "nothing").symlink_to(folder / "gone")
    for loop in (folder / "deep" / "up", elsewhere / "below" / "back"):
        loop.symlink_to(folder, target_is_directory=True)
    (folder / "0deep").symlink_to(folder / "deep", target_is_directory=True)
    (elsewhere / "again").symlink_to(elsewhere / "below", target_is_directory=True)
    paths = [path for path, _ in Folder(folder).read()]
    assert paths == sorted([*before, "texts/0link/below/d.txt", "texts/file.txt"])
    # a folder that is itself a link
    (folder.parent / "alias").symlink_to(elsewhere / "below", target_is_directory=True)
    assert ("alias/d.txt", b"linked") in Folder(folder.parent / "alias", name="alias").read()


@pytest.mark.parametrize("links", [2, 30])
def test_links_across_links_do_not_multiply(tmp_path, links):
    """Two links a level would be 2^30 paths."""
    for k in range(links):
        (tmp_path / f"level{k}").mkdir()
        for name in "ab":
            (tmp_path / f"level{k}" / name).symlink_to(tmp_path / f"level{k + 1}", target_is_directory=True)
    (tmp_path / f"level{links}").mkdir()
    (tmp_path / f"level{links}" / "x.txt").write_bytes(b"x")
    assert len(list(Folder(tmp_path / "level0").read())) == 1


@pytest.mark.parametrize(
    "pattern, names",
    [
        ("**/*", ["a.txt", "b.txt", "bytes.bin", "deep/c.md"]),
        ("*", ["a.txt", "b.txt", "bytes.bin"]),
        ("*.txt", ["a.txt", "b.txt"]),
        ("**/*.[mt]*", ["a.txt", "b.txt", "deep/c.md"]),
        ("deep/**", ["deep/c.md"]),
        ("deep/**/c.md", ["deep/c.md"]),
        ("*/?.md", ["deep/c.md"]),
        ("**/deep/*", ["deep/c.md"]),
        ("nothing/*", []),
    ],
)
def test_a_pattern_is_of_parts(folder, pattern, names):
    assert [file.relative_to(folder).as_posix() for file in texts.text_files(folder, pattern)] == names


def test_folders_of_one_name_are_told_apart_by_what_is_above(tmp_path):
    paths = [tmp_path / name for name in ("a/texts", "b/texts", "c/b/texts", "d", "stdlib")]
    for path in paths:
        path.mkdir(parents=True)
    assert corpora.distinct_names(paths) == ["a/texts", f"{tmp_path.name}/b/texts", "c/b/texts", "d", "stdlib"]
    assert corpora.distinct_names([paths[0], paths[3], paths[0]]) == ["texts", "d", "texts"]
    assert corpora.distinct_names([]) == []
    sources = distinct([Folder(paths[0]), Folder(paths[1], name="d"), Folder(paths[3]), Folder(paths[4]), Stdlib()])
    assert [one.name for one in sources] == ["texts", "d", f"{tmp_path.name}/d", f"{tmp_path.name}/stdlib", "stdlib"]
    assert [one.name for one in distinct([Folder(paths[0]), Folder(paths[3])])] == ["texts", "d"]


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


@pytest.mark.parametrize("value, kind", [(5, "int 5"), (2.5, "float 2.5"), (["x"], "list"), (b"x", "bytes"), (True, "bool True")])
def test_a_column_that_is_no_text_is_named(hub, value, kind):
    hub.rows = Rows([{"text": "first"}, {"text": None}, {"text": value}])
    rows = Hub("x/y").read()
    assert [next(rows), next(rows)] == [("y/0", "first"), ("y/1", "")]
    with pytest.raises(ValueError, match=f"must be text: row 2 of 'x/y' has {kind}"):
        next(rows)


def test_without_a_network_it_says_what_to_do(hub):
    hub.rows = ConnectionError("no route to host")
    with pytest.raises(ValueError, match="ConnectionError: no route to host. Without a network use Folder"):
        next(Hub("tinystories").read())


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
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
