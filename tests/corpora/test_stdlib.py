"""Laws of the corpus: on a small made-up library, and once on the real one."""

import json

import pytest

from zamba_lab import corpora
from zamba_lab.corpora import stdlib
from zamba_lab.corpora.stdlib import Document


def lines(word: str, n: int = 12) -> str:
    return "".join(f"the {word} of line {k} is a long enough line\n" for k in range(n))


@pytest.fixture
def library(tmp_path):
    files = {
        "alpha.py": "# Copyright of nobody\n#\n\n" + lines("alpha"),
        "beta.py": "# a comment\n" + lines("beta"),
        "beta_copy.py": "# a comment\n" + lines("beta"),
        "near.py": lines("alpha", 8),
        "package/gamma.py": lines("gamma"),
        "package/tests/test_gamma.py": lines("case"),
        "test/test_alpha.py": lines("other case"),
        "encodings/table.py": lines("table"),
        "site-packages/x/y.py": lines("other"),
        "_sysconfigdata_linux.py": lines("machine"),
        "empty.py": "\n",
        "config-3.11/build.py": lines("build"),
        "html/entities.py": lines("entity"),
        "windows.py": lines("window").replace("\n", "\r\n"),
    }
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(text.encode())
    (tmp_path / "latin.py").write_bytes(b"# caf\xe9\n")
    return tmp_path


def read(library):
    return corpora.stdlib_documents(library, topics={"with": lines("topic")})


def test_only_sources_and_prose_are_kept(library):
    assert [document.path for document in read(library)] == ["alpha.py", "beta.py", "package/gamma.py", "topics/with", "windows.py"]


def test_licence_goes_and_comment_stays(library):
    texts = {document.path: document.text for document in read(library)}
    assert texts["alpha.py"] == lines("alpha")
    assert texts["beta.py"].startswith("# a comment\n")


def test_text_is_the_same_on_every_system(library):
    texts = {document.path: document.text for document in read(library)}
    assert texts["windows.py"] == lines("window")


def test_the_smaller_of_two_near_duplicates_goes_in_any_order():
    documents = [Document("small", lines("word", 5)), Document("large", lines("word", 20)), Document("none", lines("other"))]
    for order in (documents, documents[::-1]):
        assert [document.path for document in corpora.deduplicate(order)] == ["large", "none"]


def test_split_depends_on_the_path_alone():
    assert Document("a.py", "x").split == Document("a.py", "y").split
    found = [Document(f"folder/{k}.py", "").split for k in range(2000)]
    for split, share in stdlib.SPLITS.items():
        assert abs(found.count(split) / 2000 - share) < 0.02, (split, found.count(split))


def test_unknown_split_is_refused():
    with pytest.raises(ValueError, match="split must be one of"):
        corpora.texts([], "dev")


def test_a_folder_without_sources_is_refused(tmp_path):
    with pytest.raises(ValueError, match="folder of .py files"):
        corpora.stdlib_documents(tmp_path, topics={})


def test_manifest_tells_the_same_corpus_from_another(library, tmp_path):
    documents = read(library)
    file = tmp_path / "manifest.json"
    corpora.save_manifest(documents, file)
    saved = json.loads(file.read_text())
    assert saved == corpora.manifest(documents)
    assert sum(split["bytes"] for split in saved["splits"].values()) == sum(len(d.text.encode()) for d in documents)
    assert corpora.check(documents, file) == ""
    other = [Document("alpha.py", "changed"), *documents[2:], Document("new.py", "new")]
    assert "1 documents missing, 1 new, 1 changed, 3 the same" in corpora.check(other, file)


def test_the_running_interpreter_has_a_corpus():
    documents = corpora.stdlib_documents()
    paths = [document.path for document in documents]
    assert len(paths) == len(set(paths)) and {"argparse.py", "json/decoder.py"} <= set(paths)
    assert sum(path.startswith("topics/") for path in paths) > 30
    assert not any("tests/" in path or path.startswith(("test/", "site-packages", "_sysconfigdata")) for path in paths)
    n_bytes = {split: sum(d.n_bytes for d in documents if d.split == split) for split in stdlib.SPLITS}
    assert n_bytes["train"] > 5e6 and min(n_bytes.values()) > 1e5, n_bytes
