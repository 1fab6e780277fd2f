"""The ids of many texts, fast: a word is looked up, and only a new one is taken to the tokenizer.

A byte-level BPE cuts a text into words by a regular expression and merges within each word alone, so a word has the same
ids wherever it stands. `WordEncoder` cuts with Python's own `re` and remembers the ids of each word: the same ids as the
library's, several times as fast on one core once the common words are known (`benchmarks/corpus.py`).

Where that cannot be said to be the same, the library encodes, and the result is still right:
    a tokenizer that is no byte-level BPE with one expression of letters, digits and blanks (SentencePiece, normalisers)
    a text with a character over U+FFFF, or one whose category has changed since Unicode 3.2: the two libraries may know
        different versions of it
"""

from __future__ import annotations

import json
import re
import unicodedata
from array import array
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import groupby

import numpy as np

from zamba_lab.tokenizer import Tokenizer
from zamba_lab.tokenizer.vocabularies import byte_of_letter

# How GPT-2 cuts: what a ByteLevel step does by itself.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
BLANKS = r"\t\n\x0b\x0c\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # Unicode's White_Space
LAST = 0xFFFF  # the last character looked at one by one
REMEMBERED = 1_000_000  # words; more are forgotten all at once
LONG_WORD = 64  # characters; longer ones are not remembered
PIECE = 1 << 14  # characters cut into words at once: half a million words would not fit into the cache
LONG_PIECE = 1 << 20  # characters; a longer text is never encoded at once
# Where tokenizers end a word anyway, in order of preference: between a letter and a line end, between a letter and a sign.
BORDERS = (re.compile(r"(?<=[^\W\d_])(?=\n)"), re.compile(r"(?<=[^\W\d_])(?=[^\w\s])"))


class WordEncoder:
    """Text -> ids of one tokenizer, as arrays; the ids of words that came before are remembered."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer = tokenizer
        self.dtype = np.uint16 if tokenizer.vocab_size <= 2**16 else np.int32
        self._cut, model = word_rule(tokenizer)
        self._known = _Words(model, self.dtype)

    def encode(self, text: str) -> np.ndarray:
        """`tokenizer.encode(text, add_bos=False)` as an array.

        A long text is encoded in pieces, cut at BORDERS. Where the library does it, that begins at half a million characters,
        for it needs a hundred times the text's memory (SentencePiece writes a blank of its own before each piece).
        """
        size = LONG_PIECE // 2 if self._cut is None else PIECE
        return np.concatenate([self._piece(piece) for piece in pieces(text, size, LONG_PIECE)])

    def _piece(self, text: str) -> np.ndarray:
        if self._cut is None or not text.isascii() and unstable().search(text):
            return np.array(self.tokenizer.encode(text, add_bos=False), dtype=self.dtype)
        words = self._cut.findall(text)
        if sum(map(len, words)) != len(text):  # the library makes words of what is left between, too
            return np.array(self.tokenizer.encode(text, add_bos=False), dtype=self.dtype)
        if len(self._known) > REMEMBERED:
            self._known.clear()
        return np.frombuffer(b"".join(map(self._known.__getitem__, words)), dtype=self.dtype)


class _Words(dict):
    """Word -> its ids, as the bytes of an array: joining bytes is twice as fast as chaining numbers."""

    def __init__(self, model, dtype: type):
        super().__init__()
        self._model, self._letter = model, np.dtype(dtype).char
        self._spelling = {value: letter for letter, value in byte_of_letter().items()}

    def __missing__(self, word: str) -> bytes:
        spelt = word.encode().decode("latin-1").translate(self._spelling)  # a letter for each byte: what the merges are of
        ids = array(self._letter, [token.id for token in self._model.tokenize(spelt)]).tobytes()
        if len(word) <= LONG_WORD:
            self[word] = ids
        return ids


def pieces(text: str, size: int, longest: int) -> Iterator[str]:
    """A text in pieces of at least `size` characters, each up to the next border; of `longest` where there is none."""
    start = 0
    while len(text) - start > size:
        found = (border.search(text, start + size, start + longest) for border in BORDERS)
        end = next((one.start() for one in found if one), start + longest)
        yield text[start:end]
        start = end
    yield text[start:]


def word_rule(tokenizer: Tokenizer) -> tuple[re.Pattern | None, object]:
    """How a tokenizer cuts words, as a pattern of `re`, and its BPE of `tokenizers`, which merges within one; (None, None)
    if it is no byte-level BPE of that kind."""
    content = tokenizer.to_bytes()
    file = json.loads(content) if content[:1] == b"{" else {}
    expression = _expression(file)
    if expression is None:
        return None, None
    from tokenizers import Tokenizer as Inner

    rule = re.compile(expression)
    cuts = rule.match("ab\n") and rule.match("ab\n")[0] == "ab"  # at the first of BORDERS, as it has to
    return (rule, Inner.from_str(content.decode()).model) if cuts else (None, None)


def _expression(file: dict) -> str | None:
    """The expression of a tokenizer.json in the words of `re`, or None."""
    model, steps = file.get("model") or {}, file.get("pre_tokenizer") or {}
    steps = steps.get("pretokenizers", [steps])
    odd = (
        model.get("type") != "BPE"
        or model.get("dropout")
        or model.get("unk_token")
        or file.get("normalizer")
        or any(not token["special"] for token in file.get("added_tokens", ()))
    )
    if odd or not steps or steps[-1].get("type") != "ByteLevel" or steps[-1].get("add_prefix_space"):
        return None
    by_itself = steps[-1].get("use_regex", True)
    if len(steps) == 1 and by_itself:
        return _translated(GPT2)
    cut = steps[0]
    if len(steps) != 2 or by_itself or cut.get("type") != "Split" or cut.get("behavior") != "Isolated" or cut.get("invert"):
        return None
    return _translated(cut["pattern"].get("Regex", ""))


def _translated(expression: str) -> str | None:
    """The same expression for `re`: letters, digits and blanks as ranges; None if it asks for more than these."""
    if re.search(r"\((?!\?[=!:])", expression):  # a group that captures, or changes what letters mean
        return None
    out, inside, at = [], False, 0
    ranges = {r"\p{L}": _ranges("L"), r"\p{N}": _ranges("N"), r"\s": BLANKS}
    while at < len(expression):
        token = next((t for t in (*ranges, r"\S") if expression.startswith(t, at)), None)
        if token is None and expression.startswith("\\", at):
            if expression[at : at + 2] not in (r"\n", r"\r", r"\t", r"\.", r"\/", r"\-"):
                return None
            token = expression[at : at + 2]
        token = token or expression[at]
        if token == r"\S":
            if inside:
                return None
            out.append(f"[^{BLANKS}]")
        else:
            known = ranges.get(token, token)
            out.append(known if inside or token not in ranges else f"[{known}]")
        inside = token == "[" or inside and token != "]"
        at += len(token)
    return "".join(out)


@cache
def _ranges(kind: str) -> str:
    """The characters of a category, by its first letter, as the inside of a class of `re`; those that `unstable` lets pass."""
    return _as_ranges(code for code in range(LAST + 1) if unicodedata.category(chr(code))[0] == kind)


@cache
def unstable() -> re.Pattern:
    """Matches a character over U+FFFF, or one that Unicode 3.2 did not know or put into another category."""
    old = unicodedata.ucd_3_2_0
    changed = _as_ranges(
        code
        for code in range(128, LAST + 1)
        if old.category(chr(code)) != unicodedata.category(chr(code)) or old.category(chr(code)) == "Cn"
    )
    return re.compile(f"[{changed}\\U{LAST + 1:08x}-\\U0010ffff]")


def _as_ranges(codes: Iterable[int]) -> str:
    runs = [list(run) for _, run in groupby(enumerate(codes), key=lambda pair: pair[1] - pair[0])]
    return "".join(f"\\U{run[0][1]:08x}-\\U{run[-1][1]:08x}" for run in runs)
