"""Laws of the pipeline: nothing is lost but what is counted, and the bytes do not depend on how the work was done."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from corpora_planted import document, truncated, vocabulary

from zamba_lab import corpora
from zamba_lab.config import ZambaConfig
from zamba_lab.corpora import WEB, Folder, Rules, pipeline, shards, tokens

sys.path.append(str(Path(__file__).parents[1] / "long"))
import kill_corpus

SMALL = {"tokenizer": 300, "shard_size": 4000}


@pytest.fixture(scope="module")
def texts():
    rng = random.Random(0)
    known = vocabulary(rng, 300)
    return [document(rng, known, rng.randint(200, 1500)) for _ in range(40)]


def fill(folder: Path, texts: list[str]) -> Folder:
    folder.mkdir()
    for k, text in enumerate(texts):
        (folder / f"{k:03}.txt").write_text(text, encoding="utf-8", newline="")
    return Folder(folder)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file() and path.name != ".lock"}


def paths_and_texts(corpus: corpora.Corpus) -> dict[str, str]:
    """Decoded from the token files, with the names of the list beside them."""
    with open(corpus.folder / "documents.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = {}
    for split in ("train", "validation", "test"):
        names = [row["path"] for row in rows if row["split"] == split]
        if names:
            tokens, starts = corpus.packed(split).tokens, corpus.starts(split)
            assert tokens[-1] == corpus.tokenizer.bos_id
            np.testing.assert_array_equal(starts, np.nonzero(tokens == corpus.tokenizer.bos_id)[0][:-1])
            ends = [*starts[1:], len(tokens) - 1]
            found |= {name: corpus.tokenizer.decode(tokens[a:b]) for name, a, b in zip(names, starts, ends, strict=True)}
    return found


def test_what_goes_in_comes_out_split_by_path(texts, tmp_path):
    source = fill(tmp_path / "texts", texts)
    corpus = corpora.build(source, tmp_path / "corpus", **SMALL)
    expected = {f"texts/{k:03}.txt": text for k, text in enumerate(texts)}
    assert paths_and_texts(corpus) == expected
    for split in ("train", "validation", "test"):
        of_split = [text for path, text in expected.items() if corpora.Document(path, "").split == split]
        if of_split:
            packed = corpus.packed(split)
            assert isinstance(packed.tokens, np.memmap) and packed.n_bytes == sum(len(text.encode()) for text in of_split)
            np.testing.assert_array_equal(packed.tokens, corpora.pack(of_split, corpus.tokenizer).tokens)
    assert not (corpus.folder / "work").exists() and corpora.load(corpus.folder).manifest == corpus.manifest


def test_every_dropped_document_is_counted_under_its_reason(texts, tmp_path):
    rng = random.Random(1)
    near = truncated(texts[3], 0.97, rng, [])
    bad = [texts[0], near, "short"]
    source = Folder(fill(tmp_path / "texts", texts + bad).path, rules=Rules(characters=(50, None)))
    (tmp_path / "texts" / "latin.txt").write_bytes(b"caf\xe9 " * 30)
    corpus = corpora.build([source], tmp_path / "corpus", **SMALL)
    read, kept, unique, left = corpus.manifest["stages"]
    assert (read["documents"], kept["documents"], unique["documents"], left["documents"]) == (44, 42, 41, 40)
    assert kept["dropped"]["not UTF-8"]["examples"] == [
        {"path": "texts/latin.txt", "why": "byte 0xe9 at 3", "text": ("caf\N{REPLACEMENT CHARACTER} " * 30)[:160]}
    ]
    assert kept["dropped"]["characters"]["examples"][0]["why"] == "characters 5, at least 50"
    (copy,) = unique["dropped"]["exact duplicate"]["examples"]
    assert copy["path"] == "texts/040.txt" and copy["why"] == "the same text as texts/000.txt"
    (alike,) = left["dropped"]["near duplicate"]["examples"]
    assert alike["path"] == "texts/041.txt" and alike["why"].endswith("linked to texts/003.txt")
    for before, after in zip((read, kept, unique), (kept, unique, left)):
        assert before["documents"] - after["documents"] == sum(gone["documents"] for gone in after["dropped"].values())
        assert before["bytes"] - after["bytes"] == sum(gone["bytes"] for gone in after["dropped"].values())
    assert sum(split["documents"] for split in corpus.manifest["splits"].values()) == 40
    assert "near duplicate" in str(corpus) and "tokens" in str(corpus)


def test_of_two_copies_the_one_of_the_earlier_source_stays(texts, tmp_path):
    good, other = fill(tmp_path / "good", texts[:5]), fill(tmp_path / "other", texts[3:8])
    for order, kept in (((good, other), {"good": 5, "other": 3}), ((other, good), {"other": 5, "good": 3})):
        corpus = corpora.build(order, tmp_path / f"corpus-{order[0].name}", **SMALL)
        assert corpus.manifest["stages"][-1]["documents_by_source"] == kept


@pytest.fixture(scope="module")
def uninterrupted(texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    source = fill(folder / "texts", texts + texts[:3])
    return source, content(corpora.build(source, folder / "corpus", **SMALL).folder)


@pytest.mark.parametrize(
    "stage, count", [("filter_batch", 0), ("filter_batch", 3), ("tokenise_shard", 2), ("assemble", 0), ("file_hash", 2), ("rmtree", 0)]
)
def test_stopped_anywhere_it_goes_on_to_the_same_bytes(stage, count, uninterrupted, tmp_path, monkeypatch):
    source, expected = uninterrupted
    home = {"file_hash": "assemble", "rmtree": "assemble"}.get(stage, "pipeline")
    module = sys.modules[f"zamba_lab.corpora.{home}"]
    holder = module.shutil if stage == "rmtree" else module
    real, calls = getattr(holder, stage), []

    def stops(*given, **named):
        calls.append(given)
        if len(calls) > count:
            raise KeyboardInterrupt
        return real(*given, **named)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(holder, stage, stops)
        corpora.build(source, tmp_path / "corpus", **SMALL)
    assert content(corpora.build(source, tmp_path / "corpus", **SMALL).folder) == expected


def test_a_shard_done_before_an_earlier_one_is_not_done_again(uninterrupted, tmp_path, monkeypatch):
    source, expected = uninterrupted
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pipeline, "find_duplicates", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        corpora.build(source, tmp_path / "corpus", **SMALL)
    work = tmp_path / "corpus" / "work"
    for gone in (work / "00002.json", work / "read.json"):
        gone.unlink()
    done = []
    monkeypatch.setattr(pipeline, "filter_batch", lambda *given: done.append(given[1].number) or shards.filter_batch(*given))
    assert content(corpora.build(source, tmp_path / "corpus", **SMALL).folder) == expected
    assert done == [2]


def test_the_bytes_do_not_depend_on_the_number_of_workers(uninterrupted, tmp_path):
    source, expected = uninterrupted
    assert content(corpora.build(source, tmp_path / "corpus", workers=2, **SMALL).folder) == expected


def test_killed_it_goes_on_to_the_same_bytes(uninterrupted, tmp_path):
    source, expected = uninterrupted
    code = (
        "import sys, time; from zamba_lab import corpora; from zamba_lab.corpora import pipeline, shards\n"
        "def slow(*given):\n    time.sleep(0.05); return shards.filter_batch(*given)\n"
        "pipeline.filter_batch = slow\n"
        f"corpora.build(corpora.Folder({source.path!r}), sys.argv[1], tokenizer=300, shard_size=4000)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "corpus")], stderr=subprocess.DEVNULL)
    work, until = tmp_path / "corpus" / "work", time.monotonic() + 60
    while not (work / "00002.json").is_file() and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (work / "00002.json").is_file() and not (tmp_path / "corpus" / "manifest.json").exists()
    with pytest.raises(ValueError, match="building was stopped"):
        corpora.load(tmp_path / "corpus")
    assert content(corpora.build(source, tmp_path / "corpus", **SMALL).folder) == expected


@pytest.mark.skipif(sys.platform == "win32", reason="kills a process group by a signal")
def test_killed_at_random_moments_or_out_of_room_it_ends_with_the_same_bytes(tmp_path):
    """A bounded sample of tests/long/kill_corpus.py."""
    kills, wrong = kill_corpus.run(2, seed=5, folder=tmp_path, most=2)
    assert not wrong and kills >= 1, (kills, wrong)


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of this kind")
@pytest.mark.parametrize("room", [0, 500, 3000, 12_000])
def test_a_full_disk_is_a_sentence_and_the_same_call_goes_on(uninterrupted, tmp_path, room, capsys):
    import resource

    source, expected = uninterrupted
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(OSError, match="File too large; what is done is kept, the same call goes on") as error:
            corpora.build(source, tmp_path / "corpus", **SMALL)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert isinstance(error.value.errno, int)
    assert not list((tmp_path / "corpus").rglob("*.part"))
    assert content(corpora.build(source, tmp_path / "corpus", **SMALL).folder) == expected


def test_composed_and_decomposed_accents_are_the_same_text(texts, tmp_path):
    accents = [text.replace("e", "\u00e9").replace("o", "\u00f6") for text in texts[:6]]
    copies = [unicodedata.normalize("NFD", text) for text in accents]
    assert not set(accents) & set(copies)
    corpus = corpora.build(fill(tmp_path / "texts", accents + copies + ["\u00e9t\u00e9", "e\u0301te\u0301"]), tmp_path / "corpus", **SMALL)
    assert corpus.manifest["stages"][-1]["documents"] == 7
    assert corpus.manifest["stages"][-1]["dropped"]["near duplicate"]["examples"][0]["why"].startswith("similarity 1.000")
    documents = [corpora.Document(name, text) for name, text in (("a", accents[0]), ("b", copies[0]), ("c", "\u00e9"), ("d", "e\u0301"))]
    assert len(corpora.deduplicate(documents)) == 2


def test_the_manifest_holds_the_hash_of_the_pieces(texts, tmp_path):
    source, tokenizer = fill(tmp_path / "texts", texts[:5]), corpora.train_tokenizer(texts[:5], 300)
    corpus = corpora.build(source, tmp_path / "corpus", tokenizer)
    assert corpus.pieces_hash == corpus.manifest["tokenizer"]["pieces_hash"] == tokenizer.pieces_hash == corpus.tokenizer.pieces_hash
    older = corpora.Corpus(corpus.folder, {**corpus.manifest, "tokenizer": {"vocab_size": 300, "bos_id": 1}})
    assert older.pieces_hash == tokenizer.pieces_hash
    other = corpora.build(source, tmp_path / "other", corpora.train_tokenizer(texts[5:], 300))
    assert other.vocab_size == corpus.vocab_size and other.pieces_hash != corpus.pieces_hash


def test_folders_of_one_last_name_make_one_corpus(texts, tmp_path):
    for name, some in (("a", texts[:4]), ("b", texts[4:8])):
        (tmp_path / name).mkdir()
        fill(tmp_path / name / "texts", some)
    corpus = corpora.build([str(tmp_path / "a" / "texts"), str(tmp_path / "b" / "texts")], tmp_path / "corpus", **SMALL)
    assert corpus.manifest["stages"][-1]["documents_by_source"] == {"a/texts": 4, "b/texts": 4}
    assert set(paths_and_texts(corpus)) == {f"{name}/texts/{k:03}.txt" for name in "ab" for k in range(4)}


def test_a_folder_that_gave_nothing_can_be_filled_and_read_again(texts, tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "empty.txt").write_bytes(b"")
    with pytest.raises(ValueError, match="gave 1, and the rules dropped them all"):
        corpora.build(Folder(tmp_path / "texts"), tmp_path / "corpus", **SMALL)
    assert [path.name for path in (tmp_path / "corpus").iterdir() if path.name != ".lock"] == []
    (tmp_path / "texts" / "full.txt").write_text(texts[0])
    assert list(paths_and_texts(corpora.build(Folder(tmp_path / "texts"), tmp_path / "corpus", **SMALL))) == ["texts/full.txt"]


def test_a_file_system_without_locks_is_a_sentence(uninterrupted, tmp_path, monkeypatch):
    import filelock

    def acquire(self, *_, **__):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr(filelock.FileLock, "acquire", acquire)
    with pytest.raises(ValueError, match="a file system with locks"):
        corpora.build(uninterrupted[0], tmp_path / "corpus", **SMALL)


def test_a_finished_corpus_is_opened_and_its_files_are_checked(uninterrupted, tmp_path, monkeypatch):
    source, _ = uninterrupted
    corpus = corpora.build(source, tmp_path / "corpus", **SMALL)
    monkeypatch.setattr(pipeline, "_read", None)
    assert corpora.build(source, tmp_path / "corpus", **SMALL).manifest == corpus.manifest and corpus.check() == ""
    with open(tmp_path / "corpus" / "train.tokens.npy", "r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    assert "train.tokens.npy" in corpus.check()


def test_a_document_longer_than_all_else_is_one_document(tmp_path, monkeypatch):
    monkeypatch.setattr(tokens, "PIECE", 3000)
    rng = random.Random(2)
    long = document(rng, vocabulary(rng, 100), 200_000)
    source = fill(tmp_path / "texts", [long, "a small one beside it\n"])
    corpus = corpora.build(source, tmp_path / "corpus", tokenizer=300, shard_size=1000)
    assert paths_and_texts(corpus) == {"texts/000.txt": long, "texts/001.txt": "a small one beside it\n"}


@pytest.mark.parametrize(
    "files, sentence",
    [
        ({}, "texts gave 0$"),
        ({"empty.txt": b""}, r"gave 1, and the rules dropped them all \(characters\)"),
        ({"latin.txt": b"caf\xe9"}, r"the rules dropped them all \(not UTF-8\)"),
    ],
)
def test_an_empty_corpus_is_refused(files, sentence, tmp_path):
    (tmp_path / "texts").mkdir()
    for name, data in files.items():
        (tmp_path / "texts" / name).write_bytes(data)
    with pytest.raises(ValueError, match="at least one document: " + (sentence if not files else ".*" + sentence)):
        corpora.build(Folder(tmp_path / "texts"), tmp_path / "corpus")


def test_a_split_without_documents_says_so(tmp_path):
    corpus = corpora.build(fill(tmp_path / "texts", ["one text alone\n"]), tmp_path / "corpus", tokenizer=300)
    assert paths_and_texts(corpus) == {"texts/000.txt": "one text alone\n"}
    with pytest.raises(ValueError, match="has none .*the hash of a document's path"):
        corpus.packed("validation")
    with pytest.raises(ValueError, match="split must be one of"):
        corpus.packed("dev")


def test_a_tokenizer_that_does_not_fit_the_model_is_refused_before_any_work(texts, tmp_path):
    source, config = fill(tmp_path / "texts", texts[:2]), ZambaConfig(vocab_size=280)
    tokenizer = corpora.train_tokenizer(texts, 300)
    for given in (tokenizer, 300):
        with pytest.raises(ValueError, match="more tokens than the model.*300.*vocab_size=280"):
            corpora.build(source, tmp_path / "corpus", given, config=config)
    assert not (tmp_path / "corpus").exists()
    with pytest.raises(ValueError, match="the tokenizer's is 1, the config's bos_token_id=7"):
        corpora.fits(tokenizer, ZambaConfig(vocab_size=300, bos_token_id=7))
    corpus = corpora.build(source, tmp_path / "corpus", tokenizer, config=ZambaConfig(vocab_size=300))
    corpora.fits(corpus, ZambaConfig(vocab_size=300))
    with pytest.raises(ValueError, match="vocab_size=280"):
        corpora.fits(corpus, config)


def test_what_would_give_another_corpus_is_refused(uninterrupted, texts, tmp_path):
    source, _ = uninterrupted
    corpora.build(source, tmp_path / "corpus", **SMALL)
    with pytest.raises(ValueError, match=r"it differs in threshold \(threshold: there 0.85, now 0.9\)"):
        corpora.build(source, tmp_path / "corpus", threshold=0.9, **SMALL)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="a folder of its own: .* holds letter.txt"):
        corpora.build(source, tmp_path / "full", **SMALL)
    with pytest.raises(ValueError, match="must not lie within"):
        corpora.build(source, Path(source.path) / "corpus", **SMALL)
    with pytest.raises(ValueError, match="each with a name of its own"):
        corpora.build([source, source], tmp_path / "other", **SMALL)
    with pytest.raises(ValueError, match="at work in"):
        from filelock import FileLock

        with FileLock(tmp_path / "corpus" / ".lock"):
            corpora.build(source, tmp_path / "corpus", **SMALL)


def test_half_characters_of_a_stream_are_dropped_not_raised(tmp_path):
    good = "A text that is long enough for the rules of pages; it goes on a little, says what it has to say, and ends where it began."

    class Stream:
        name, rules = "stream", WEB

        def read(self, start=0):
            return iter([("stream/0", "\ud800" * 200), ("stream/1", good)][start:])

        def fingerprint(self):
            return ""

    corpus = corpora.build(Stream(), tmp_path / "corpus", tokenizer=300)
    assert corpus.manifest["stages"][1]["dropped"]["not UTF-8"]["examples"][0]["why"] == "half a surrogate pair at character 0"
    assert json.loads((tmp_path / "corpus" / "manifest.json").read_text()) == corpus.manifest
