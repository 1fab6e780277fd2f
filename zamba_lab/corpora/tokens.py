"""From texts to ids: a byte-level BPE trained on the texts, and documents packed into one array of ids.

The vocabulary starts with `<pad>`, `<s>`, `</s>` (ids 0, 1, 2) and the 256 bytes, so that every text can be written;
the rest are the merges of Sennrich et al. 2016, found by the `tokenizers` library within the words that `WORDS` cuts.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from zamba_lab.corpora.words import WordEncoder
from zamba_lab.tokenizer import Tokenizer

SPECIALS = ["<pad>", "<s>", "</s>"]
# One word is a line end with the indentation after it, a name with the blank before it, one digit, or a run of signs with the line
# end after it (in a program the two go together). 3.3 bytes a token at 2048 tokens, where the usual cut gives 3.2.
WORDS = r"\n+[ ]*|[ ]?[\p{L}_]+|\p{N}|[ ]?[^\s\p{L}\p{N}_]+(?:\n[ ]*)?|[ ]+(?=[ ])|\s"


class Packed(NamedTuple):
    """Documents as one array, `<s>` text `<s>` text ... `<s>`, and the bytes of text that it stands for.

    The last `<s>` is there so that each document is followed by one: predicting it is predicting the document's end.
    """

    tokens: np.ndarray
    n_bytes: int


def train_tokenizer(texts: Iterable[str], vocab_size: int = 2048) -> Tokenizer:
    """Train the vocabulary; the same texts give the same file.

    Raises:
        ValueError: `vocab_size` has no room for the special tokens and the 256 bytes.
    """
    from tokenizers import Regex, Tokenizer as Inner, decoders, models, pre_tokenizers, trainers

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
    inner.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False)
    )
    return Tokenizer(inner)


def pack(texts: list[str], tokenizer: Tokenizer) -> Packed:
    """Join documents into one array of ids, uint16 where the vocabulary allows it.

    Raises:
        ValueError: there is no text, or the tokenizer has no `<s>`.
    """
    if not texts or tokenizer.bos_id is None:
        raise ValueError(f"packing needs texts and a tokenizer with a start token: got {len(texts)} texts, bos_id={tokenizer.bos_id}")
    encoder = WordEncoder(tokenizer)
    bos = np.array([tokenizer.bos_id], dtype=encoder.dtype)
    parts = [part for text in texts for part in (bos, encoder.encode(text))]
    return Packed(np.concatenate([*parts, bos]), sum(len(text.encode()) for text in texts))
