"""What a document is measured by, and the rules that drop it: syntactic filters in the way of Zyda.

A rule is a measure and the least and greatest value that it may have; a profile is a set of rules, chosen for a kind of text:

    WEB     pages: the thresholds of the Zyda filters (Tokpanov et al. 2024) for length, mean word, signs, digits, links, tags
            and placeholder text; repeated lines as in Gopher (Rae et al. 2021). For languages with blanks between words.
            Its lists of words are not used, nor is the model that judges quality for Zyda-2
    CODE    programs: signs, digits and repetition are their nature, tables and machine-written lines are not
    PLAIN   any folder: drops only what is no text, or repeats itself

Everything is counted on the UTF-8 bytes, where letters of other scripts are neither signs nor digits.
"""

import string
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property

from zamba_lab.corpora.grams import GRAM, distinct, gram_hashes

Bounds = tuple[float | None, float | None]  # least and greatest value that is kept; None: no bound
DIGITS, SIGNS = string.digits.encode(), string.punctuation.encode()
CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r")) + b"\x7f"


class Measured:
    """A text with what several measures need, computed once."""

    def __init__(self, text: str):
        self.text = text

    @cached_property
    def bytes(self) -> bytes:
        return self.text.encode("utf-8", "surrogatepass")

    @cached_property
    def words(self) -> list[str]:
        return self.text.split()

    @cached_property
    def lines(self) -> list[str]:
        return [line for line in map(str.strip, self.text.split("\n")) if line]

    def share(self, kind: bytes) -> float:
        """The share of the bytes that are of this kind."""
        return 1 - len(self.bytes.translate(None, kind)) / max(1, len(self.bytes))

    def rate(self, *strings: str) -> float:
        """Occurrences of these strings per character."""
        return sum(self.text.count(string) for string in strings) / max(1, len(self.text))


def mean_word(m: Measured) -> float:
    """Characters of a word; a word is what stands between blanks."""
    return sum(map(len, m.words)) / max(1, len(m.words))


def repeated_lines(m: Measured) -> float:
    """The share of lines that repeat an earlier one; blank lines do not count."""
    return 1 - len(set(m.lines)) / max(1, len(m.lines))


def repeated_grams(m: Measured) -> float:
    """The share of 25-character grams that repeat an earlier one; 0 for a text of under 100 characters."""
    if len(m.text) < 4 * GRAM:
        return 0.0
    hashes = gram_hashes(m.text)
    return 1 - len(distinct(hashes)) / len(hashes)


@dataclass(frozen=True)
class Rules:
    """The least and greatest value of each measure; they are checked in this order, the cheap ones first."""

    characters: Bounds = (1, None)
    control: Bounds = (None, 0.001)  # share of bytes that are control characters: such a file is no text
    digits: Bounds = (None, None)  # share
    signs: Bounds = (None, None)  # share of ASCII punctuation
    links: Bounds = (None, None)  # "https://" and "http://" per character
    sites: Bounds = (None, None)  # "www." per character
    tags: Bounds = (None, None)  # "<" per character
    keys: Bounds = (None, None)  # '":' per character: JSON
    placeholders: Bounds = (None, None)  # occurrences of "lorem ipsum"
    mean_line: Bounds = (None, None)  # characters of a line that is not blank
    mean_word: Bounds = (None, None)
    repeated_lines: Bounds = (None, 0.9)
    repeated_grams: Bounds = (None, 0.9)

    def __post_init__(self) -> None:
        for name, (least, greatest) in asdict(self).items():
            if least is not None and greatest is not None and least > greatest:
                raise ValueError(f"a rule's least value must not be over its greatest: got {name}=({least}, {greatest})")


MEASURES: dict[str, Callable[[Measured], float]] = {
    "characters": lambda m: len(m.text.strip()),
    "control": lambda m: m.share(CONTROLS),
    "digits": lambda m: m.share(DIGITS),
    "signs": lambda m: m.share(SIGNS),
    "links": lambda m: m.rate("https://", "http://"),
    "sites": lambda m: m.rate("www."),
    "tags": lambda m: m.rate("<"),
    "keys": lambda m: m.rate('":'),
    "placeholders": lambda m: m.text.lower().count("lorem ipsum"),
    "mean_line": lambda m: sum(map(len, m.lines)) / max(1, len(m.lines)),
    "mean_word": mean_word,
    "repeated_lines": repeated_lines,
    "repeated_grams": repeated_grams,
}

PLAIN = Rules()
# fmt: off
WEB = Rules(
    characters=(100, None), digits=(None, 0.2), signs=(None, 0.3), links=(None, 0.002), sites=(None, 0.01), tags=(None, 0.03),
    keys=(None, 0.002), placeholders=(None, 2), mean_word=(3, 12), repeated_lines=(None, 0.3), repeated_grams=(None, 0.5),
)
CODE = Rules(
    characters=(30, None), digits=(None, 0.3), signs=(None, 0.5), mean_line=(None, 200), mean_word=(2, 30),
    repeated_lines=(None, 0.7), repeated_grams=(None, 0.7),
)
# fmt: on


def broken_rule(text: str, rules: Rules) -> tuple[str, str] | None:
    """The first rule that a text breaks, with the value and the bound as a sentence; None if it keeps them all."""
    measured = Measured(text)
    for name, (least, greatest) in vars(rules).items():
        if least is None and greatest is None:
            continue
        value = MEASURES[name](measured)
        if least is not None and value < least:
            return name, f"{name} {value:.4g}, at least {least:g}"
        if greatest is not None and value > greatest:
            return name, f"{name} {value:.4g}, at most {greatest:g}"
    return None
