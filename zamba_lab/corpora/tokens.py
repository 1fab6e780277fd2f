"""From texts to ids: a byte-level BPE trained on the texts, and documents packed into one array of ids.

The vocabulary starts with `<pad>`, `<s>`, `</s>` (ids 0, 1, 2) and the 256 bytes, so that every text can be written;
the rest are the merges of Sennrich et al. 2016, found by the `tokenizers` library within the words that `WORDS` cuts.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from zamba_lab.tokenizer import Tokenizer, checked_text

SPECIALS = ["<pad>", "<s>", "</s>"]
# One word is a line end with the indentation after it, a name with the blank before it, one digit, or a run of signs with the line
# end after it (in a program the two go together). 3.3 bytes a token at 2048 tokens, where the usual cut gives 3.2.
WORDS = r"\n+[ ]*|[ ]?[\p{L}_]+|\p{N}|[ ]?[^\s\p{L}\p{N}_]+(?:\n[ ]*)?|[ ]+(?=[ ])|\s"
# Merging costs the square of a word's length, so training sees long runs without a blank, or of blanks, in stretches of 1,024.
LONG_RUN = re.compile(r"\S{1024}|\s{1024}")
PIECE = 1 << 19  # characters of a long document encoded in one call: the library needs a hundred times a text's memory
# A place where tokenizers end a word anyway: after a letter, before a line end or an ASCII sign.
BORDER = re.compile(r"(?<=[^\W\d_])(?=[\n!-/:-@\[-^`{-~])")


class Packed(NamedTuple):
    """Documents as one array, `<s>` text `<s>` text ... `<s>`, and the bytes of text that it stands for.

    The last `<s>` is there so that each document is followed by one: predicting it is predicting the document's end.
    """

    tokens: np.ndarray
    n_bytes: int


def train_tokenizer(texts: Iterable[str], vocab_size: int = 2048) -> Tokenizer:
    """Train the vocabulary, in time linear in the texts; the same texts give the same file.

    Raises:
        ValueError: `vocab_size` has no room for the special tokens and the 256 bytes.
    """
    from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Inner

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size < len(SPECIALS) + len(alphabet):
        raise ValueError(
            f"vocab_size must be at least {len(SPECIALS) + len(alphabet)} ({len(SPECIALS)} special tokens and "
            f"{len(alphabet)} bytes): got {vocab_size}"
        )
    inner = Inner(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORDS), behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False)
    inner.train_from_iterator((stretch for text in texts for stretch in stretches(checked_text(text))), trainer)
    return Tokenizer(inner)


def stretches(text: str) -> Iterator[str]:
    """A text, cut after every 1,024 characters without a blank and every 1,024 blanks: no word of a stretch is over 2,048."""
    start = 0
    for run in LONG_RUN.finditer(text):
        yield text[start : run.end()]
        start = run.end()
    yield text[start:]


def encode(text: str, tokenizer: Tokenizer) -> np.ndarray:
    """`tokenizer.encode(text, add_bos=False)` as an array, uint16 where the vocabulary allows it.

    A document of over a million characters is encoded in pieces that end at a BORDER; the ids are the same where the tokenizer
    ends a word there (SentencePiece writes a blank of its own before each piece).
    """
    ids = [tokenizer.encode(piece, add_bos=False) for piece in pieces(text, PIECE)]
    return np.concatenate([np.array(part, dtype=dtype_of(tokenizer)) for part in ids])


def dtype_of(tokenizer: Tokenizer) -> type[np.integer]:
    """What a corpus stores ids as."""
    return np.uint16 if tokenizer.vocab_size <= 2**16 else np.int32


def pieces(text: str, size: int) -> Iterator[str]:
    """A text in pieces of `size` to `2 * size` characters, each up to the first border; of `2 * size` where there is none."""
    start = 0
    while len(text) - start > 2 * size:
        border = BORDER.search(text, start + size, start + 2 * size)
        end = border.start() if border else start + 2 * size
        yield text[start:end]
        start = end
    yield text[start:]


def pack(texts: list[str], tokenizer: Tokenizer) -> Packed:
    """Join documents into one array of ids, uint16 where the vocabulary allows it.

    Raises:
        ValueError: there is no text, or the tokenizer has no `<s>`.
    """
    if not texts or tokenizer.bos_id is None:
        raise ValueError(f"packing needs texts and a tokenizer with a start token: got {len(texts)} texts, bos_id={tokenizer.bos_id}")
    bos = np.array([tokenizer.bos_id], dtype=dtype_of(tokenizer))
    parts = [part for text in texts for part in (bos, encode(text, tokenizer))]
    return Packed(np.concatenate([*parts, bos]), sum(len(text.encode()) for text in texts))
