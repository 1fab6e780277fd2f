"""The two kinds of tokenizer file behind one set of methods. Each is read by its own library, imported when it is needed.

file, library                   the file's name, and who reads it
size                            one more than the greatest id
specials                        the names of the special tokens
names()                         id -> name of every token
id_of(name)                     the id of a token by its exact name, or None
encode_batch(texts)             ids of each text; special tokens are never read out of it
encode_marked(text, markers)    ids of one text in which the markers are tokens
decode(ids), label(id)          text without special tokens; something to print for one id
waits(id)                       whether this token's text depends on the token after it
"""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from zamba_lab.lazy import needed

JSON, MODEL = "tokenizer.json", "tokenizer.model"
MAX_BYTES = 2**28  # of a tokenizer file; the largest published ones have 2^25
MAX_IDS = 2**24  # the libraries and we count up to the greatest id; the largest published vocabularies have 2^18
VISIBLE = str.maketrans({" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍"})
BYTE = re.compile(r"<0x([0-9A-F]{2})>")  # how a vocabulary with byte fallback names a byte


@contextmanager
def _library_errors(rule: str) -> Iterator[None]:
    """Whatever a tokenizer library raises becomes a ValueError that opens with `rule`.

    `tokenizers` raises a bare Exception, and a failed assertion of its Rust code arrives as a PanicException, which is a
    BaseException; `sentencepiece` raises RuntimeError.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ValueError(f"{rule} ({type(error).__name__}: {str(error)[:300]})") from error


def content_of(file: Path) -> bytes:
    """A tokenizer file's bytes. Raises ValueError if there are more than MAX_BYTES."""
    if (n_bytes := file.stat().st_size) > MAX_BYTES:
        raise ValueError(f"a tokenizer file must have at most {MAX_BYTES:,} bytes: {str(file)!r} has {n_bytes:,}")
    return file.read_bytes()


def _check_prefix(content: str) -> None:
    """Refuse a BPE with a prefix that a merge's second part does not open with: `tokenizers` cuts so many bytes off it, and
    where that splits a character the process ends."""
    if not re.search(r'"continuing_subword_prefix"\s*:\s*"[^"]', content):
        return
    model = json.loads(content)["model"]
    prefix, merges = model.get("continuing_subword_prefix") or "", model.get("merges") or ()
    seconds = (merge.split(" ")[-1] if isinstance(merge, str) else merge[-1] for merge in merges)
    if wrong := [second for second in seconds if not second.startswith(prefix)]:
        raise ValueError(f"the second part of a merge must open with continuing_subword_prefix {prefix!r}: got {wrong[0]!r:.80}")


class Json:
    """A tokenizer.json, through the library `tokenizers`."""

    file, library = JSON, "tokenizers"

    def __init__(self, inner):
        """Args: inner: a `tokenizers.Tokenizer`. Raises ValueError if an id of it is MAX_IDS or more."""
        inner.encode_special_tokens = True
        # A file keeps what its last user had set. transformers' plain call unsets it, too.
        inner.no_truncation()
        inner.no_padding()
        if getattr(inner.model, "dropout", None):
            inner.model.dropout = None  # of training: with it a text has another encoding each time
        self._inner = inner
        self._added = inner.get_added_tokens_decoder()
        self.size = max(inner.get_vocab(with_added_tokens=True).values(), default=-1) + 1
        if self.size > MAX_IDS:
            raise ValueError(f"the ids of a tokenizer must be below {MAX_IDS:,}: the greatest is {self.size - 1:,}")
        self.specials = [token.content for token in self._added.values() if token.special]

    @classmethod
    def read(cls, file: Path) -> "Json":
        from tokenizers import Tokenizer as Inner

        content = content_of(file).decode("utf-8", "replace")
        with _library_errors(f"a {JSON} must hold a tokenizer: got {str(file)!r} of {len(content)} characters"):
            _check_prefix(content)
            return cls(Inner.from_str(content))

    def to_bytes(self) -> bytes:
        return self._inner.to_str(pretty=False).encode()

    def names(self) -> dict[int, str]:
        return {i: name for name, i in self._inner.get_vocab(with_added_tokens=True).items()}

    def id_of(self, name: str) -> int | None:
        return self._inner.token_to_id(name)

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        with _library_errors("the tokenizer cannot encode this text"):
            return [encoding.ids for encoding in self._inner.encode_batch_fast(texts, add_special_tokens=False)]

    def encode_marked(self, text: str, markers: Sequence[str]) -> list[int]:
        # As one text: whether a space goes before the first word after a marker is for the file to say.
        self._inner.encode_special_tokens = False
        try:
            with _library_errors("the tokenizer cannot encode this text"):
                return self._inner.encode(text, add_special_tokens=False).ids
        finally:
            self._inner.encode_special_tokens = True

    def decode(self, ids: list[int]) -> str:
        with _library_errors("the tokenizer cannot decode these ids"):
            return self._inner.decode(ids, skip_special_tokens=True)

    def label(self, i: int) -> str:
        name = self._inner.id_to_token(i)
        if not name or i in self._added:
            return name or f"<{i}>"
        if byte := BYTE.fullmatch(name):
            return _visible_byte(int(byte[1], 16))
        text = name.replace("▁", " ") if "▁" in name else self._inner.decode([i], skip_special_tokens=False)
        if "\N{REPLACEMENT CHARACTER}" in text and "\N{REPLACEMENT CHARACTER}" not in name:
            table = byte_of_letter()
            text = "".join(_visible_byte(table[c]) if c in table else c for c in name)
        return _printable(text) or f"<{i}>"

    def waits(self, i: int) -> bool:
        # The library reads a run of bytes as one: an invalid one makes the valid ones before it unreadable.
        return BYTE.fullmatch(self._inner.id_to_token(i) or "") is not None


class SentencePiece:
    """A tokenizer.model, through the library `sentencepiece`."""

    file, library = MODEL, "sentencepiece"

    def __init__(self, inner):
        """Args: inner: a `sentencepiece.SentencePieceProcessor`."""
        self._inner = inner
        self.size = inner.get_piece_size()
        self._unread = {i for i in range(self.size) if inner.is_control(i) or inner.is_unknown(i)}
        self.specials = [inner.id_to_piece(i) for i in sorted(self._unread)]

    @classmethod
    def read(cls, file: Path) -> "SentencePiece":
        library = needed("sentencepiece", f"a {MODEL}", "sentencepiece")
        content = content_of(file)
        with _library_errors(f"a {MODEL} must hold a SentencePiece model: got {str(file)!r} of {len(content)} bytes"):
            vocabulary = cls(library.SentencePieceProcessor(model_proto=content)) if content else None
        if vocabulary is None or not vocabulary.size:
            raise ValueError(f"a {MODEL} must hold a SentencePiece model: {str(file)!r} is empty")
        return vocabulary

    def to_bytes(self) -> bytes:
        return self._inner.serialized_model_proto()

    def names(self) -> dict[int, str]:
        return {i: self._inner.id_to_piece(i) for i in range(self.size)}

    def id_of(self, name: str) -> int | None:
        i = self._inner.piece_to_id(name)  # that of the unknown token, if there is no such piece; -1 if there is not even that
        return i if 0 <= i < self.size and self._inner.id_to_piece(i) == name else None

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        with _library_errors("the tokenizer cannot encode this text"):
            return self._inner.encode(list(texts))

    def encode_marked(self, text: str, markers: Sequence[str]) -> list[int]:
        # The library reads no marker out of a text, so each stretch between two is a text of its own.
        parts = [part for part in re.split(f"({'|'.join(map(re.escape, markers))})", text) if part]
        return [i for part in parts for i in ([self.id_of(part)] if part in markers else self._inner.encode(part))]

    def decode(self, ids: list[int]) -> str:
        with _library_errors("the tokenizer cannot decode these ids"):
            return self._inner.decode([i for i in ids if i not in self._unread])

    def label(self, i: int) -> str:
        name = self._inner.id_to_piece(i)
        if i in self._unread:
            return name
        if self._inner.is_byte(i):
            return _visible_byte(int(name[1:-1], 16))
        return _printable(name.replace("▁", " ")) or f"<{i}>"

    def waits(self, i: int) -> bool:
        return False


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else f"<{ord(c):02X}>" for c in text.translate(VISIBLE))


def _visible_byte(value: int) -> str:
    return _printable(chr(value)) if value < 0x80 else f"<{value:02X}>"


def byte_of_letter() -> dict[str, int]:
    """The letters by which a byte-level vocabulary writes the 256 bytes: printable ones stand for themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in printable]
    return {chr(value): value for value in printable} | {chr(256 + k): value for k, value in enumerate(others)}
