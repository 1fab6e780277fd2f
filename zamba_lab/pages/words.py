"""The tokenizer of a page as data, and the texts that a page comes with."""

import bisect
import json
import textwrap
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zamba_lab.tokenizer import Tokenizer
from zamba_lab.tokenizer.vocabularies import JSON, byte_of_letter

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"  # what ByteLevel cuts by, if told to
LENGTH, ROWS = 256, 16  # tokens of a row of the reference, and the most rows
EXAMPLE = '''class Basket:
    """Fruit by name, with what each costs."""

    def __init__(self, prices):
        self.prices = prices
        self.fruit = []

    def add(self, name):
        if name not in self.prices:
            raise KeyError(name)
        self.fruit.append(name)

    def total(self):
        return sum(self.prices[name] for name in self.fruit)
'''


def vocabulary(tokenizer: Tokenizer | None) -> dict[str, Any]:
    """What tokenizer.js needs of a byte-level BPE. Raises ValueError for another kind of tokenizer."""
    if tokenizer is None or tokenizer.file != JSON:
        raise ValueError(f"a page needs a model with a {JSON} beside its weights: got {tokenizer!r}")
    data = json.loads(tokenizer.to_bytes())
    model, letters = data["model"], list(byte_of_letter().items())
    pattern = word_pattern(data["pre_tokenizer"] or {})
    specials = [token["id"] for token in data["added_tokens"] if token["special"]]
    rules = {
        "BPE over bytes": model["type"] == "BPE" and all(letter in model["vocab"] for letter, _ in letters),
        "no affixes": not model.get("continuing_subword_prefix") and not model.get("end_of_word_suffix"),
        "merges applied to every word": not model.get("ignore_merges"),
        "no normaliser": data["normalizer"] is None,
        "no added tokens but special ones": len(specials) == len(data["added_tokens"]),
        "words cut by ByteLevel, or by one Split and ByteLevel": pattern is not None,
    }
    if broken := [rule for rule, holds in rules.items() if not holds]:
        raise ValueError(f"a page reads a {JSON} with {', '.join(rules)}: this one breaks {', '.join(broken)}")
    names = tokenizer._vocabulary.names()
    ids = range(tokenizer.vocab_size)
    return {
        "pieces": [names.get(i, "") for i in ids],
        "labels": tokenizer.pieces(ids),
        "merges": [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]],
        "pattern": pattern,
        "letters": [letter for letter, _ in sorted(letters, key=lambda pair: pair[1])],
        "specials": specials,
        "bos": tokenizer.bos_id,
    }


def word_pattern(cutter: dict[str, Any]) -> str | None:
    """The regular expression that words are cut by, in JavaScript's spelling; None if they are cut in a way a page does not know."""
    steps = cutter["pretokenizers"] if cutter.get("type") == "Sequence" else [cutter]
    if not steps or steps[-1].get("type") != "ByteLevel" or steps[-1]["add_prefix_space"]:
        return None
    match steps[:-1], steps[-1].get("use_regex", True):
        case [], True:
            pattern = GPT2
        case [{"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}], False:
            pass
        case _:
            return None
    if any(other in pattern for other in ("(?i", "(?>", "++", "*+", "?+", "&&", "\\A", "\\z", "[[")):
        return None  # Rust's, without a like in JavaScript
    return pattern.replace(r"\s", r"\p{White_Space}").replace(r"\S", r"\P{White_Space}")


def windows(tokenizer: Tokenizer, text: str) -> Tensor:
    """The beginning of a text as up to ROWS rows of up to LENGTH tokens that each begin a document, (b, l), no row shorter than another."""
    ids = tokenizer.encode(text, add_bos=False)
    start = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    width = min(LENGTH - len(start), len(ids))
    if not width:
        raise ValueError("a reference needs a token or more: got an empty text")
    return torch.tensor([start + ids[at : at + width] for at in range(0, len(ids) - width + 1, width)][:ROWS])


def library() -> str:
    """Some Python that is on every machine: two modules of the standard library."""
    return "\n".join(Path(module.__file__).read_text(encoding="utf-8") for module in (bisect, textwrap))
