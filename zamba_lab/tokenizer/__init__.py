"""Text to ids and back, from the file beside a model's weights.

    vocabularies.py   the two kinds of file: tokenizer.json and tokenizer.model, each read by its own library
    texts.py          which files of a folder are text, and how bytes become text

A tokenizer.json converted from a tokenizer.model need not agree with it about spaces: there are several ways to convert. So it
matters which one was read: tokenizer.json comes first, as it is what the published models are used with, and `source` says it.
Training a tokenizer is in `corpora/tokens.py`.

Ids are those of transformers' plain call, whatever truncation or padding an earlier user left in the file, with two
departures. Special tokens are never read out of a text: a web page may say "</s>", and here that is four characters, so decoding
gives back what was encoded. And the only one that is added is the start token, if asked for. `chat` alone writes them
between the messages.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

from zamba_lab.lazy import needed
from zamba_lab.tokenizer.vocabularies import JSON, MODEL, Json, SentencePiece

FILES = (JSON, MODEL)  # in order of preference
START, END = "<|im_start|>", "<|im_end|>"  # ChatML; the instruct models have them in place of <s> and </s>
BOS = ("<s>", START, "<|endoftext|>", "<bos>")  # the names in use, in order of preference
EOS = ("</s>", END, "<|endoftext|>", "<eos>")
PAD = ("<pad>", "[PAD]", "<unk>", "<|padding|>")


class Tokenizer:
    """Text <-> ids.

    `bos_id`, `eos_id` and `pad_id` are None where the vocabulary has no such token. `source` names what was read.
    """

    def __init__(self, inner, source: str = "made here"):
        """Args: inner: a `tokenizers.Tokenizer`, or a vocabulary of `vocabularies.py`. source: what to call it."""
        self._vocabulary = inner if isinstance(inner, Json | SentencePiece) else Json(inner)
        self.source = source
        self.bos_id, self.eos_id, self.pad_id = (self._first_of(names) for names in (BOS, EOS, PAD))

    def _first_of(self, names: Iterable[str]) -> int | None:
        return next((i for i in map(self._vocabulary.id_of, names) if i is not None), None)

    def __repr__(self) -> str:
        return (
            f"Tokenizer({self.source}, read by {self._vocabulary.library}: {self.vocab_size:,} tokens, "
            f"bos {self.bos_id}, eos {self.eos_id}, pad {self.pad_id})"
        )

    @classmethod
    def load(cls, source: str | Path) -> Tokenizer:
        """Read a tokenizer.json or a tokenizer.model; of a folder the first of them that there is.

        Raises:
            ValueError: there is no such file, or it is not a tokenizer.
            ModuleNotFoundError: it is a tokenizer.model and sentencepiece is not installed.
        """
        file = Path(source)
        if file.is_dir():
            file = next((file / name for name in FILES if (file / name).is_file()), file / JSON)
        if not file.is_file():
            raise ValueError(
                f"a tokenizer is loaded from a {JSON}, a {MODEL} or the folder of one: got {str(source)!r}, "
                f"and there is no file {str(file)!r}"
            )
        kind = SentencePiece if ".model" in file.name and file.suffix != ".json" else Json
        return cls(kind.read(file), file.name)

    @classmethod
    def mistral_v1(cls) -> Tokenizer:
        """The 32,000 pieces of Mistral's first vocabulary, for experiments without a published model's own file.

        It comes inside the package mistral-common. The base models of the family use this vocabulary through a
        tokenizer.json of their own, which need not agree about spaces; this is the SentencePiece file.

        Raises ModuleNotFoundError where mistral-common or sentencepiece is not installed.
        """
        package = needed("mistral_common", "the vocabulary Mistral v1", "mistral", "mistral-common")
        file = Path(package.__path__[0]) / "data" / "tokenizer.model.v1"
        if not file.is_file():
            raise ValueError(f"mistral-common must hold {file.name}: this release of it has no such file; the releases 1.8 and 1.9 have it")
        return cls(SentencePiece.read(file), "Mistral v1, from mistral-common")

    def save(self, folder: str | Path) -> Path:
        """Write tokenizer.json or tokenizer.model, as was read, into a folder, which is made if needed; its path."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / self.file
        file.write_bytes(self.to_bytes())
        return file

    @property
    def file(self) -> str:
        """The name of its file: tokenizer.json or tokenizer.model."""
        return self._vocabulary.file

    def to_bytes(self) -> bytes:
        """The tokenizer's file, as `save` writes it."""
        return self._vocabulary.to_bytes()

    @property
    def vocab_size(self) -> int:
        """The ids are 0 .. vocab_size - 1, special ones included; a few in between may have no token.

        A model may have more rows than that: published ones are padded to a multiple of 8 or 64.
        """
        return self._vocabulary.size

    @cached_property
    def pieces_hash(self) -> str:
        """SHA-256, in hex, of every id with its piece: two tokenizers of one hash mean the same by an id.

        A tokenizer.model and the tokenizer.json converted from it have one hash. Corpora and weights keep it, so that they
        can be compared before they meet.
        """
        return hashlib.sha256(json.dumps(sorted(self._vocabulary.names().items())).encode()).hexdigest()

    def encode(self, text: str, add_bos: bool = True) -> list[int]:
        """The ids of a text, after the token that starts a document if `add_bos` and there is one.

        Raises ValueError if it is no string, or holds half of a surrogate pair.
        """
        return self.encode_batch([text], add_bos)[0]

    def encode_batch(self, texts: list[str], add_bos: bool = True) -> list[list[int]]:
        """`encode` of each text, in parallel."""
        start = [self.bos_id] if add_bos and self.bos_id is not None else []
        return [start + ids for ids in self._vocabulary.encode_batch([checked_text(text) for text in texts])]

    def chat(self, messages: Sequence[dict[str, str]], reply: bool = True) -> list[int]:
        """The ids of a conversation, ready for an instruct model: `chat_text` with its markers as single tokens.

        Nothing else is added: the first marker is the token that starts a document. Arguments and errors as `chat_text`.
        """
        return self._vocabulary.encode_marked(checked_text(self.chat_text(messages, reply)), (START, END))

    def chat_text(self, messages: Sequence[dict[str, str]], reply: bool = True) -> str:
        """A conversation in the markup of the instruct models, ChatML.

        Args:
            messages: {"role": "user", "content": ...} and so on, in order; the roles are "system", "user", "assistant".
            reply: end with the opening of the assistant's next message, for the model to go on from.

        Raises:
            ValueError: the vocabulary lacks the markers, so that no model with it was taught to chat in them; or a message
                is not one, or holds a special token's name, which would be read as the token.
        """
        v = self._vocabulary
        if v.id_of(START) is None or v.id_of(END) is None:
            raise ValueError(f"chat needs a tokenizer with {START} and {END}, as the instruct models have: this one is {self!r}")
        for message in messages:
            content, role = (message.get("content"), message.get("role")) if isinstance(message, dict) else (None, None)
            if not isinstance(content, str) or role not in ("system", "user", "assistant"):
                raise ValueError(
                    f"a message must be {{'role': 'system', 'user' or 'assistant', 'content': its text}}: got {message!r:.120}"
                )
            if names := [name for name in {*v.specials, START, END} if name and name in content]:
                raise ValueError(f"a message must not hold special tokens: got {names} in {content!r:.120}")
        text = "".join(f"{START}{message['role']}\n{message['content']}{END}\n" for message in messages)
        return text + (f"{START}assistant\n" if reply else "")

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids; special tokens are left out, bytes that are no UTF-8 become U+FFFD.

        Raises ValueError for an id outside [0, vocab_size), such as one of the rows that pad a model's vocabulary.
        """
        return self._vocabulary.decode(self._checked(ids))

    def pieces(self, ids: Iterable[int]) -> list[str]:
        """A printable label for each id: · is a space, ⏎ a newline, ⇥ a tab, <E2> a byte inside a character.

        An id without a piece, such as one of the rows that pad a model's vocabulary, is its number: <50279>. Raises ValueError
        for a negative id.
        """
        ids = [int(i) for i in ids]
        if wrong := [i for i in ids if i < 0]:
            raise ValueError(f"ids must be at least 0: got {wrong[:5]}, vocab_size={self.vocab_size}")
        return [self._vocabulary.label(i) if i < self.vocab_size else f"<{i}>" for i in ids]

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of ids as they come, in pieces that are never less than a character; joined, they are `decode(ids)`."""
        context: list[int] = []  # the ids yielded last: some vocabularies write a word's first space only after another word
        fresh: list[int] = []  # the ids not yielded yet
        for i in ids:
            fresh += self._checked([i])
            if self._vocabulary.waits(fresh[-1]):
                continue
            known, text = self.decode(context), self.decode(context + fresh)
            if text.endswith("\N{REPLACEMENT CHARACTER}") or len(text) <= len(known):
                continue  # perhaps the first bytes of a character; or nothing to read
            yield text[len(known) :]
            context, fresh = fresh, []
        if rest := self.decode(context + fresh)[len(self.decode(context)) :]:
            yield rest

    def _checked(self, ids: Iterable[int]) -> list[int]:
        ids = [int(i) for i in ids]
        if wrong := [i for i in ids if not 0 <= i < self.vocab_size]:
            raise ValueError(f"ids must be in [0, vocab_size): got {wrong[:5]}, vocab_size={self.vocab_size}")
        return ids


def checked_text(text: str) -> str:
    """The text itself. Raises ValueError if it is no string, or holds half of a surrogate pair."""
    if not isinstance(text, str):
        raise ValueError(f"a text must be one string: got {type(text).__name__} {text!r:.80}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"a text must be Unicode: got half of a surrogate pair, {text[error.start]!a}, at character {error.start} of {len(text)} "
            "(bytes that are not UTF-8 are read as such halves)"
        ) from error
    return text
