"""A text as its set of 25-character grams: hashes of all of them, MinHash signatures, band keys, Jaccard similarity.

    J(a, b) = |grams(a) & grams(b)| / |grams(a) | grams(b)|
    P(some band of a equals that of b) = 1 - (1 - J^16)^8        8 bands of 16 values each, as for Zyda-2

Case, the length of blanks and the way accents are composed do not count: a gram is 25 characters of the text in Unicode's form
NFC and in lower case, with one space between words.

A signature is 128 values, each of which agrees between two texts with probability J. They come from one permutation of the
grams instead of 128 (Li, Owen & Zhang 2012): the upper bits of a gram's hash pick one of 128 bins, and each bin keeps its
least hash; in a short text, a bin without a gram gets the value of another (Shrivastava 2017). So a gram costs one hash,
computed for 32,768 characters at a time with numpy. The libraries that compute MinHash ask for a list of grams as Python objects,
and making that list costs more than all that is done here; `benchmarks/corpus.py` compares them.
"""

import unicodedata
from collections.abc import Iterable, Iterator

import numpy as np

GRAM = 25  # characters
FORM = "NFC"  # of Unicode: composed and decomposed accents are the same
SIGNATURE = 128  # values
BANDS = 8
ROWS = SIGNATURE // BANDS  # values in a band
BLOCK = 1 << 15  # characters hashed together: few enough to stay in the processor's cache
EMPTY = np.uint64(2**64 - 1)  # the value of a bin without a gram
BASE = 0x9E3779B97F4A7C15  # odd; the hash of a gram is a polynomial in it, modulo 2^64


def normal(text: str) -> str:
    """The text as grams see it: NFC, lower case, single spaces, at least 25 characters."""
    return " ".join(unicodedata.normalize(FORM, text).lower().split()).ljust(GRAM)


def gram_hashes(text: str) -> np.ndarray:
    """One 64-bit hash for each gram of a text, in order, repeated where grams repeat; uint64."""
    text = normal(text)
    return np.concatenate([_hashes(_codes(text[at : at + BLOCK + GRAM - 1])) for at in range(0, len(text) - GRAM + 1, BLOCK)])


def distinct(hashes: np.ndarray) -> np.ndarray:
    """The sorted set of hashes. (numpy's `unique` does not sort, and is slower than its sort.)"""
    ordered = np.sort(hashes)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])]


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    """The similarity of two sets of hashes, each from `distinct`, in [0, 1]."""
    both = np.sort(np.concatenate([a, b]))
    common = int((both[1:] == both[:-1]).sum())
    return common / (len(both) - common)


def similarity(a: str, b: str) -> float:
    """The Jaccard similarity of two texts."""
    return jaccard(distinct(gram_hashes(a)), distinct(gram_hashes(b)))


def signatures(texts: Iterable[str], count: int) -> np.ndarray:
    """MinHash signatures. texts: `count` of them. Returns (count, 128) uint64."""
    least = np.full(count * SIGNATURE, EMPTY)
    for block, owners in _blocks(texts):
        hashes = _hashes(block)
        inside = owners[GRAM - 1 :] == owners[: len(hashes)]  # a gram lies within one text
        hashes = hashes[inside]
        bins = owners[: len(inside)][inside] * SIGNATURE + (hashes >> np.uint64(57)).astype(np.int64)
        np.minimum.at(least, bins, hashes)
    return _filled(least.reshape(count, SIGNATURE))


def band_keys(signatures: np.ndarray) -> np.ndarray:
    """Two texts share a key if they agree in all 16 values of the band. (n, 128) -> (n, 8), uint64."""
    banded = signatures.reshape(len(signatures), BANDS, ROWS)
    weights = _mixed(np.arange(1, ROWS + 1, dtype=np.uint64)) | np.uint64(1)
    return _mixed((banded * weights).sum(axis=2, dtype=np.uint64))


def chance(similarity: float) -> float:
    """The probability that two texts of this similarity share a band: the S-curve of the method."""
    return 1 - (1 - similarity**ROWS) ** BANDS


def _blocks(texts: Iterable[str]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Character codes of about BLOCK characters at a time, and the number of the text that each is from."""
    parts, owners, size = [], [], 0
    for k, text in enumerate(texts):
        text = normal(text)
        for at in range(0, len(text) - GRAM + 1, BLOCK):  # pieces overlap: no gram is lost between them
            parts.append(text[at : at + BLOCK + GRAM - 1])
            owners.append(k)
            size += len(parts[-1])
            if size >= BLOCK:
                yield _joined(parts, owners)
                parts, owners, size = [], [], 0
    if parts:
        yield _joined(parts, owners)


def _joined(parts: list[str], owners: list[int]) -> tuple[np.ndarray, np.ndarray]:
    # A full part ends its block, so no block has two parts of one text, whose border a gram could cross.
    return _codes("".join(parts)), np.repeat(np.array(owners), [len(part) for part in parts])


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)


def _hashes(codes: np.ndarray) -> np.ndarray:
    """The hash of every window of GRAM codes, by doubling: a window of 2w is two of w."""
    window, width = codes, 1
    for bit in bin(GRAM)[3:]:
        window = window[:-width] * np.uint64(pow(BASE, width, 2**64)) + window[width:]
        width *= 2
        if bit == "1":
            window = window[:-1] * np.uint64(BASE) + codes[width:]
            width += 1
    return _mixed(window)


def _mixed(h: np.ndarray) -> np.ndarray:
    """Steele, Lea & Flood's (2014) finaliser of 64 bits: every bit of the result depends on every bit of h."""
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return h ^ (h >> np.uint64(31))


# For each bin all bins in an order of its own: an empty one gets the value of the first that is not empty.
DONORS = np.argsort(_mixed(np.arange(SIGNATURE**2, dtype=np.uint64)).reshape(SIGNATURE, SIGNATURE), axis=1)


def _filled(least: np.ndarray) -> np.ndarray:
    """Signatures without empty bins. least: (n, 128), at least one value of each row is no EMPTY."""
    for row in np.nonzero((least == EMPTY).any(axis=1))[0]:
        there = least[row] != EMPTY
        donors = DONORS[np.arange(SIGNATURE), there[DONORS].argmax(axis=1)]
        least[row] = np.where(there, least[row], least[row][donors])
    return least
