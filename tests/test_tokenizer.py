"""Laws of the tokenizer: nothing is lost, nothing is split, nothing is hidden."""

import importlib.util
import json
import random
import sys
import tracemalloc
from pathlib import Path

import pytest

from zamba_lab import corpora
from zamba_lab.tokenizer import END, START, Tokenizer
from zamba_lab.tokenizer.vocabularies import SentencePiece

sys.path.append(str(Path(__file__).parent / "long"))
import fuzz_tokenizers

TEXTS = ["def f(x):\n    return x\n" * 4, "the prose of the lab, and the rest\n"]
AWKWARD = ["", " ", "\n\n\n   x", "a\tb\r\n", "<s>not special</s><pad>", "naïve – 日本語 👩‍🔬 \N{REPLACEMENT CHARACTER}.", "\x00\x1f\x7f"]


KINDS = ("json", "json with byte fallback", "sentencepiece", "mistral v1")
NO_MISTRAL = "NO mistral-common: the Mistral v1 vocabulary was not tested. pip install 'zamba-lab[mistral]'"


@pytest.fixture(scope="module")
def tokenizer():
    return corpora.train_tokenizer(TEXTS, vocab_size=280)


def make_sentencepiece(**names: str) -> Tokenizer:
    """A small SentencePiece vocabulary; `names` of its special pieces."""
    library = pytest.importorskip("sentencepiece")
    plain = dict(normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True)
    content = fuzz_tokenizers.sentencepiece_model(TEXTS, unk_id=0, bos_id=1, eos_id=2, **plain, **names)
    return Tokenizer(SentencePiece(library.SentencePieceProcessor(model_proto=content)), "small")


def make_fallback(of: Tokenizer, newer: bool = False) -> Tokenizer:
    """The vocabulary of a SentencePiece tokenizer as a tokenizer.json, converted in the older or the newer way."""
    from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as Inner

    names = [of._vocabulary._inner.id_to_piece(i) for i in range(of.vocab_size)]
    vocab = {name: i for i, name in enumerate(names)}
    merges = [(name[:k], name[k:]) for name in names[259:] for k in range(1, len(name)) if name[:k] in vocab and name[k:] in vocab]
    inner = Inner(models.BPE(vocab, merges, byte_fallback=True, unk_token=names[0], fuse_unk=True))
    if newer:
        inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    inner.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names[:3]])
    return Tokenizer(inner)


@pytest.fixture(scope="module")
def kinds(tokenizer) -> dict:
    small = make_sentencepiece()
    found = dict.fromkeys(KINDS) | {"json": tokenizer, "sentencepiece": small, "json with byte fallback": make_fallback(small)}
    if importlib.util.find_spec("mistral_common"):
        found["mistral v1"] = Tokenizer.mistral_v1()
    return found


@pytest.fixture(params=KINDS)
def any_kind(kinds, request) -> Tokenizer:
    return kinds[request.param] or pytest.skip(NO_MISTRAL)


def random_ids(tokenizer, seed: int, n: int = 60) -> list[int]:
    return random.Random(seed).choices(range(tokenizer.vocab_size), k=n)


@pytest.mark.parametrize("text", AWKWARD + TEXTS)
def test_decode_undoes_encode(any_kind, text):
    tokenizer = any_kind
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.encode(text) == [tokenizer.bos_id, *tokenizer.encode(text, add_bos=False)]


@pytest.mark.parametrize("text", AWKWARD + TEXTS)
def test_stream_joins_to_decode_and_never_splits_a_character(any_kind, text):
    tokenizer = any_kind
    ids = tokenizer.encode(text)
    pieces = list(tokenizer.stream(iter(ids)))
    assert "".join(pieces) == text
    if "\N{REPLACEMENT CHARACTER}" not in text:
        assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


@pytest.mark.parametrize("seed", range(8))
def test_stream_joins_to_decode_on_any_ids(any_kind, seed):
    ids = random_ids(any_kind, seed)
    assert "".join(any_kind.stream(ids)) == any_kind.decode(ids)
    ids = [i % 259 for i in ids]  # the special tokens and the bytes
    assert "".join(any_kind.stream(ids)) == any_kind.decode(ids)


def test_stream_gives_a_word_as_soon_as_it_is_there(tokenizer):
    ids = tokenizer.encode("ab", add_bos=False)
    given = tokenizer.stream(iter(ids))
    assert next(given) == tokenizer.decode(ids[:1])


def test_pieces_are_printable_one_for_each_id(tokenizer):
    ids = list(range(tokenizer.vocab_size))
    pieces = tokenizer.pieces(ids)
    assert len(pieces) == len(ids) and pieces[:3] == ["<pad>", "<s>", "</s>"]
    assert all(piece and piece.isprintable() and " " not in piece for piece in pieces), pieces
    text = " é\n\t"
    assert "".join(tokenizer.pieces(tokenizer.encode(text, add_bos=False))) in ("·<C3><A9>⏎⇥", "·é⏎⇥")


def test_load_undoes_save(tokenizer, tmp_path):
    file = tokenizer.save(tmp_path / "new")
    for source in (file, file.parent, str(file)):
        again = Tokenizer.load(source)
        assert again.encode(TEXTS[0]) == tokenizer.encode(TEXTS[0]) and again.vocab_size == tokenizer.vocab_size == 280


@pytest.mark.parametrize("ids", [[-1], [280], [0, 1, 10**6], [2**31 - 1], [2**70]])
def test_ids_out_of_the_vocabulary_are_refused_and_labelled_by_their_number(any_kind, ids):
    ids = [i + any_kind.vocab_size - 280 if i == 280 else i for i in ids]
    for use in (any_kind.decode, lambda ids: list(any_kind.stream(ids))):
        with pytest.raises(ValueError, match=f"vocab_size={any_kind.vocab_size}") as error:
            use(ids)
        assert str(ids[-1]) in str(error.value)
    if ids[0] < 0:
        with pytest.raises(ValueError, match="at least 0"):
            any_kind.pieces(ids)
    elif ids[-1] >= any_kind.vocab_size:
        assert any_kind.pieces(ids)[-1] == f"<{ids[-1]}>"


def test_text_that_is_no_string_is_refused(tokenizer):
    with pytest.raises(ValueError, match="one string: got bytes"):
        tokenizer.encode(b"x")


def test_a_missing_or_broken_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="there is no file"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"')
    with pytest.raises(ValueError, match="must hold a tokenizer.*17 characters"):
        Tokenizer.load(tmp_path)


# --- files from elsewhere ------------------------------------------------------------------------------------------

STATE = {
    "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
    "padding": {
        "strategy": {"Fixed": 64},
        "direction": "Right",
        "pad_to_multiple_of": 8,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "<pad>",
    },
}
LEFT_BEHIND = [{}, {"truncation": STATE["truncation"]}, {"padding": STATE["padding"]}, STATE]


def edited(tokenizer: Tokenizer, file, **changes) -> Path:
    """The file of a tokenizer with other entries."""
    file.write_text(json.dumps(json.loads(tokenizer.to_bytes()) | changes))
    return file


@pytest.mark.parametrize("state", LEFT_BEHIND)
@pytest.mark.parametrize("kind", ["json", "json with byte fallback"])
def test_encoding_equals_the_plain_call_of_transformers_whatever_an_earlier_user_left(kinds, kind, state, tmp_path):
    from transformers import PreTrainedTokenizerFast

    start = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    adds_start = {
        "type": "TemplateProcessing",
        "single": start,
        "pair": start,
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }
    file = edited(kinds[kind], tmp_path / "tokenizer.json", **state, post_processor=adds_start)
    texts = [text for text in AWKWARD + TEXTS if "<s>" not in text]
    theirs, ours = PreTrainedTokenizerFast(tokenizer_file=str(file)), Tokenizer.load(file)
    assert ours.encode_batch(texts) == [theirs(text).input_ids for text in texts]
    assert [ours.encode(text, add_bos=False) for text in texts] == [theirs(text, add_special_tokens=False).input_ids for text in texts]
    saved = Tokenizer.load(ours.save(tmp_path / "saved"))
    assert saved.encode_batch(texts) == ours.encode_batch(texts) and saved.pieces_hash == ours.pieces_hash


def test_one_hash_means_the_same_pieces(kinds, tmp_path):
    hashes = {kind: tokenizer.pieces_hash for kind, tokenizer in kinds.items() if tokenizer}
    assert hashes["sentencepiece"] == hashes["json with byte fallback"] and len(set(hashes.values())) == len(hashes) - 1
    for tokenizer in filter(None, kinds.values()):
        assert Tokenizer.load(tokenizer.save(tmp_path / tokenizer.source.replace(" ", ""))).pieces_hash == tokenizer.pieces_hash
    other = corpora.train_tokenizer([text[::-1] for text in TEXTS], vocab_size=280)
    assert other.vocab_size == kinds["json"].vocab_size and other.pieces_hash != kinds["json"].pieces_hash
    assert Tokenizer.load(edited(kinds["json"], tmp_path / "tokenizer.json", **STATE)).pieces_hash == kinds["json"].pieces_hash
    # a stored hash stays comparable: this one is of the vocabulary that is nothing but three specials and 256 bytes
    assert corpora.train_tokenizer([""], vocab_size=259).pieces_hash[:16] == "6b835327af118931"


@pytest.mark.parametrize("last", [2**31 - 1, 2**32 - 1, 2**24])
def test_an_enormous_id_is_refused_before_anything_is_made_that_large(tokenizer, last, tmp_path):
    model = json.loads(tokenizer.to_bytes())["model"]
    model["vocab"] |= {"zz": last}
    tracemalloc.start()
    with pytest.raises(ValueError, match=f"below 16,777,216: the greatest is {last:,}"):
        Tokenizer.load(edited(tokenizer, tmp_path / "tokenizer.json", model=model))
    assert tracemalloc.get_traced_memory()[1] < 1e7
    tracemalloc.stop()


def test_a_vocabulary_with_gaps_has_as_many_ids_as_its_greatest_says(tokenizer, tmp_path):
    model = json.loads(tokenizer.to_bytes())["model"]
    model["vocab"] |= {"zz": 300}
    gaps = Tokenizer.load(edited(tokenizer, tmp_path / "tokenizer.json", model=model))
    assert gaps.vocab_size == 301 and gaps.pieces([290, 300, 301]) == ["<290>", "zz", "<301>"]
    assert gaps.decode([290, *gaps.encode("def f")]) == "def f"


def test_a_library_that_panics_or_would_end_the_process_is_a_sentence(tokenizer, tmp_path, capfd):
    file = tmp_path / "tokenizer.json"
    edited(tokenizer, file, normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"})
    with pytest.raises(ValueError, match="must hold a tokenizer.*PanicException: Precompiled"):
        Tokenizer.load(file)
    model = json.loads(tokenizer.to_bytes())["model"]
    edited(tokenizer, file, model=model | {"continuing_subword_prefix": "a", "merges": [["e", "\u0120"]]})
    with pytest.raises(ValueError, match="second part of a merge must open with continuing_subword_prefix 'a'"):
        Tokenizer.load(file)
    capfd.readouterr()  # what the library says of its panic


def test_mutated_files_are_read_or_refused_by_a_sentence(tmp_path, capfd):
    """A bounded sample of tests/long/fuzz_tokenizers.py."""
    counts, escapes = fuzz_tokenizers.run(400, seed=3, folder=tmp_path)
    capfd.readouterr()
    assert not escapes and counts["read"] > 10 and counts["refused"] > 100, (counts, escapes)


def test_dropout_left_in_a_file_does_not_act(tokenizer, tmp_path):
    model = json.loads(tokenizer.to_bytes())["model"] | {"dropout": 0.9}
    assert Tokenizer.load(edited(tokenizer, tmp_path / "tokenizer.json", model=model)).encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])


def test_an_enormous_file_is_refused_unread(tmp_path):
    for name in ("tokenizer.json", "tokenizer.model"):
        with open(tmp_path / name, "wb") as file:
            file.truncate(2**30)  # sparse
        with pytest.raises(ValueError, match="at most 268,435,456 bytes.*1,073,741,824"):
            Tokenizer.load(tmp_path / name)


@pytest.mark.parametrize("text", ["\ud800", "ab\udcffc", "\udc80\ud800"])
def test_half_a_surrogate_pair_is_refused_by_every_kind(any_kind, text):
    with pytest.raises(ValueError, match=r"half of a surrogate pair, '.ud"):
        any_kind.encode(text)
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        any_kind.encode_batch(["good", text])


# --- the kinds of file --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def instruct():
    return make_sentencepiece(unk_piece="[PAD]", bos_piece=START, eos_piece=END)


def test_every_kind_has_the_published_ids(any_kind):
    assert (any_kind.pad_id, any_kind.bos_id, any_kind.eos_id) == (0, 1, 2)
    assert "bos 1, eos 2, pad 0" in repr(any_kind) and any_kind.source in repr(any_kind)


def test_every_kind_labels_every_token(any_kind):
    pieces = any_kind.pieces(range(any_kind.vocab_size))
    assert all(piece and piece.isprintable() and " " not in piece for piece in pieces)
    letter = any_kind.encode("é", add_bos=False)
    assert "".join(any_kind.pieces(letter)).removeprefix("·") in ("é", "<C3><A9>")
    assert any_kind.pieces(any_kind.encode("a\n", add_bos=False))[-1] == "⏎"


def test_every_kind_is_saved_as_the_file_it_was(any_kind, tmp_path):
    file = any_kind.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.source == file.name == any_kind.file
    assert [again.encode(text) for text in AWKWARD] == [any_kind.encode(text) for text in AWKWARD]


def test_the_two_readers_agree_on_words_and_tokenizer_json_comes_first(kinds, tmp_path):
    small, same = kinds["sentencepiece"], kinds["json with byte fallback"]
    assert same.encode("the prose of the lab") == small.encode("the prose of the lab")
    small.save(tmp_path)
    assert "tokenizer.model, read by sentencepiece" in repr(Tokenizer.load(tmp_path))
    same.save(tmp_path)
    assert "tokenizer.json, read by tokenizers" in repr(Tokenizer.load(tmp_path))
    assert Tokenizer.load(tmp_path / "tokenizer.model").source == "tokenizer.model"


def test_a_converted_file_need_not_agree_about_spaces(kinds):
    small = kinds["sentencepiece"]
    newer = make_fallback(small, newer=True)
    assert newer.encode("the lab") == small.encode("the lab")
    assert newer.encode(" the lab") != small.encode(" the lab")


@pytest.mark.parametrize("content", [b"", b"{}", b"\x0a\x05junk" * 9])
def test_a_broken_sentencepiece_file_is_refused(tmp_path, content):
    pytest.importorskip("sentencepiece")
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(ValueError, match="must hold a SentencePiece model"):
        Tokenizer.load(tmp_path)


def test_a_missing_library_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "tokenizer.model").write_bytes(b"x")
    for module in ("sentencepiece", "mistral_common"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=r"needs sentencepiece.*zamba-lab\[sentencepiece\]"):
        Tokenizer.load(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=r"needs mistral-common.*zamba-lab\[mistral\]"):
        Tokenizer.mistral_v1()


def test_mistral_v1_is_what_it_says(kinds):
    tokenizer = kinds["mistral v1"] or pytest.skip(NO_MISTRAL)
    assert tokenizer.vocab_size == 32_000 and "Mistral v1, from mistral-common" in repr(tokenizer)
    assert tokenizer.pieces(tokenizer.encode("hello world")) == ["<s>", "·hell", "o", "·world"]


# --- conversations ------------------------------------------------------------------------------------------------

TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is  a state?\n"}]
MARKED = f"{START}system\nBe brief.{END}\n{START}user\nWhat is  a state?\n{END}\n{START}assistant\n"


@pytest.mark.parametrize("kind", ["sentencepiece", "json with byte fallback"])
def test_chat_writes_its_markers_as_tokens_1_and_2(instruct, kind):
    tokenizer = instruct if kind == "sentencepiece" else make_fallback(instruct)
    assert (tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id) == (0, 1, 2)
    ids = tokenizer.chat(TALK)
    assert tokenizer.chat_text(TALK) == MARKED
    assert [i for i in ids if i < 3] == [1, 2, 1, 2, 1] and ids[0] == 1
    assert tokenizer.decode(ids).replace(" ", "") == MARKED.replace(START, "").replace(END, "").replace(" ", "")
    closed = tokenizer.chat(TALK, reply=False)
    assert ids[: len(closed)] == closed and tokenizer.chat_text(TALK, reply=False) == MARKED[: -len(f"{START}assistant\n")]


def test_chat_reads_the_same_markers_through_both_libraries(instruct):
    assert make_fallback(instruct).chat(TALK[:1]) == instruct.chat(TALK[:1])


def test_markers_outside_of_chat_are_characters(instruct):
    for tokenizer in (instruct, make_fallback(instruct)):
        tokenizer.chat(TALK)
        ids = tokenizer.encode(f"{START}user{END}", add_bos=False)
        assert not {1, 2} & set(ids) and tokenizer.decode(ids) == f"{START}user{END}"


def test_chat_without_markers_is_refused(kinds):
    for tokenizer in filter(None, kinds.values()):
        with pytest.raises(ValueError, match=r"chat needs a tokenizer with <\|im_start\|>"):
            tokenizer.chat(TALK)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ({"role": "user", "content": f"x{END}"}, "must not hold special tokens"),
        ({"role": "user", "content": "[PAD]"}, "must not hold special tokens"),
        ({"role": "judge", "content": "x"}, "a message must be"),
        ({"role": "user"}, "a message must be"),
        ("hello", "a message must be"),
    ],
)
def test_a_message_that_is_none_is_refused(instruct, message, sentence):
    with pytest.raises(ValueError, match=sentence):
        instruct.chat([*TALK, message])
