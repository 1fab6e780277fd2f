"""Text to ids and back, from a `tokenizer.json`: the file that every published model of the family carries.

A thin wrapping of the `tokenizers` library, which is imported when a file is read. Training a tokenizer is in
`corpora/tokens.py`. Two departures from the library: special tokens are never read out of the text (a web page may
say "</s>"; here that is four characters, so decoding gives back what was encoded), and the only one that is
added is the one asked for, at the start.
"""
from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

FILE = "tokenizer.json"
BOS = ("<s>", "<|endoftext|>", "<bos>")          # the names in use, in order of preference
EOS = ("</s>", "<|endoftext|>", "<eos>")
PAD = ("<pad>", "<unk>", "<|padding|>")
VISIBLE = str.maketrans({" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍"})


class Tokenizer:
    """Text <-> ids; `bos_id`, `eos_id` and `pad_id` are None where the vocabulary has no such token."""

    def __init__(self, inner):
        """Args: inner: a `tokenizers.Tokenizer`."""
        inner.encode_special_tokens = True
        self._inner = inner
        self.bos_id, self.eos_id, self.pad_id = (self._first_of(names) for names in (BOS, EOS, PAD))

    def _first_of(self, names: Iterable[str]) -> int | None:
        ids = (self._inner.token_to_id(name) for name in names)
        return next((i for i in ids if i is not None), None)

    @classmethod
    def load(cls, source: str | Path) -> "Tokenizer":
        """Read a `tokenizer.json`, or the one in a folder.

        Raises:
            ValueError: there is no such file, or it is not a tokenizer.
        """
        from tokenizers import Tokenizer as Inner

        file = Path(source) / FILE if Path(source).is_dir() else Path(source)
        if not file.is_file():
            raise ValueError(f"a tokenizer is loaded from a {FILE} or the folder of one: got {str(source)!r}, "
                             f"and there is no file {str(file)!r}")
        content = file.read_text(encoding="utf-8", errors="replace")
        try:
            return cls(Inner.from_str(content))
        except Exception as error:  # the library raises a bare Exception
            raise ValueError(f"a {FILE} must hold a tokenizer: got {str(file)!r} of {len(content)} characters "
                             f"({error})") from error

    def save(self, folder: str | Path) -> Path:
        """Write `tokenizer.json` into a folder, which is made if needed; the path of the file."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FILE).write_text(self._inner.to_str(pretty=False), encoding="utf-8")
        return folder / FILE

    @property
    def vocab_size(self) -> int:
        """The number of tokens, special ones included."""
        return self._inner.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str, add_bos: bool = True) -> list[int]:
        """The ids of a text, after the token that starts a document if `add_bos` and there is one."""
        if not isinstance(text, str):
            raise ValueError(f"encode takes one string: got {type(text).__name__} {text!r:.80}")
        return self.encode_batch([text], add_bos)[0]

    def encode_batch(self, texts: list[str], add_bos: bool = True) -> list[list[int]]:
        """`encode` of each text, in parallel."""
        start = [self.bos_id] if add_bos and self.bos_id is not None else []
        return [start + found.ids for found in self._inner.encode_batch(texts, add_special_tokens=False)]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids; special tokens are left out, bytes that are no UTF-8 become U+FFFD."""
        return self._inner.decode(self._checked(ids), skip_special_tokens=True)

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """A printable label for each id: · is a space, ⏎ a newline, ⇥ a tab, <E2> a byte inside a character."""
        return [self._piece(i) for i in self._checked(ids)]

    def _piece(self, i: int) -> str:
        name = self._inner.id_to_token(i)
        if name is None or i in self._inner.get_added_tokens_decoder():
            return name or f"<{i}>"
        text = name.replace("▁", " ") if "▁" in name else self._inner.decode([i], skip_special_tokens=False)
        if "\N{REPLACEMENT CHARACTER}" in text:
            table = _byte_of_letter()
            text = "".join(_visible_byte(table[c]) if c in table else c for c in name)
        return "".join(c if c.isprintable() else f"<{ord(c):02X}>" for c in text.translate(VISIBLE))

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of ids as they come, in pieces that are never less than a character; joined, they are `decode(ids)`."""
        context: list[int] = []     # the ids given out last: some vocabularies write a word's first space only after another
        fresh: list[int] = []       # the ids not given out yet
        for i in ids:
            fresh += self._checked([i])
            known, text = self.decode(context), self.decode(context + fresh)
            if text.endswith("\N{REPLACEMENT CHARACTER}") or len(text) <= len(known):
                continue            # perhaps the first bytes of a character; or nothing to read
            yield text[len(known):]
            context, fresh = fresh, []
        if rest := self.decode(context + fresh)[len(self.decode(context)):]:
            yield rest

    def _checked(self, ids: Iterable[int]) -> list[int]:
        ids = [int(i) for i in ids]
        if wrong := [i for i in ids if not 0 <= i < self.vocab_size]:
            raise ValueError(f"ids must be in [0, vocab_size): got {wrong[:5]}, vocab_size={self.vocab_size}")
        return ids


def _visible_byte(value: int) -> str:
    return chr(value).translate(VISIBLE) if value < 0x80 else f"<{value:02X}>"


def _byte_of_letter() -> dict[str, int]:
    """The letters by which a byte-level vocabulary writes the 256 bytes: printable ones stand for themselves."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [value for value in range(256) if value not in printable]
    return {chr(value): value for value in printable} | {chr(256 + k): value for k, value in enumerate(others)}
