"""The long run of mutated tokenizer files: `make test-long`. Each is read and used, or refused by a ValueError.

Sound files of every kind of model (BPE, Unigram, WordPiece, SentencePiece) are changed as JSON (a value, a key, a part of another
file) or as bytes. An escape is any other exception, a panic of the library among them, or no end within SECONDS; an abort of the
process ends the run. Escapes are kept as files to look at, and are exit status 1. The same seed gives the same inputs.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from random import Random

from zamba_lab import corpora
from zamba_lab.tokenizer import Tokenizer

SECONDS = 5  # the sound ones take a few hundredths of a second
TEXTS = ["def f(x):\n    return x\n" * 4, "the prose of the lab, and the rest\n"]
VALUES = [None, True, 0, 1, -1, 2**31 - 1, 2**31, 2**63, 1.5, float("nan"), "", "a", "\ud800", "é▁", [], {}, [[]], "AAAA", "////"]
VALUES += [{"String": ""}, {"Regex": "("}, {"Regex": ""}, "BERT"]
METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
UNIGRAM = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
    "pre_tokenizer": METASPACE,
    "post_processor": None,
    "decoder": METASPACE,
    "model": {
        "type": "Unigram",
        "unk_id": 0,
        "vocab": [["<unk>", 0.0], ["a", -1.0], ["b", -2.0], ["ab", -2.5], ["▁", -1.0]],
        "byte_fallback": False,
    },
}
WORDPIECE = UNIGRAM | {
    "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True},
    "pre_tokenizer": {"type": "BertPreTokenizer"},
    "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    "model": {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {"[UNK]": 0, "a": 1, "##b": 2},
    },
}


def sentencepiece_model(texts: list[str], **options) -> bytes:
    """A tokenizer.model of 300 pieces with byte fallback. ImportError where sentencepiece is not installed."""
    from sentencepiece import SentencePieceTrainer

    written, usual = io.BytesIO(), dict(model_type="bpe", vocab_size=300, byte_fallback=True, minloglevel=2, hard_vocab_limit=False)
    SentencePieceTrainer.train(sentence_iterator=iter(texts * 8), model_writer=written, **usual | options)
    return written.getvalue()


def sound() -> tuple[list[dict], bytes]:
    """Contents of sound files: tokenizer.json, tokenizer.model (empty without its library)."""
    jsons = [json.loads(corpora.train_tokenizer(TEXTS, 280).to_bytes()), UNIGRAM | {"normalizer": {"type": "NFKC"}}, UNIGRAM, WORDPIECE]
    try:
        return jsons, sentencepiece_model(TEXTS)
    except ModuleNotFoundError:
        return jsons, b""


def places(tree: object, path: tuple = ()):
    """The paths to all that is inside a tree, of each list or table its first forty."""
    if path:
        yield path
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, below in list(entries)[:40]:
        yield from places(below, (*path, key))


def mutated(jsons: list[dict], model: bytes, random: Random) -> tuple[str, bytes]:
    """A file's name and content."""
    if model and random.random() < 0.15:
        data = bytearray(model)
        for _ in range(random.randint(1, 8)):
            data[random.randrange(random.choice([50, len(data)]))] = random.randrange(256)
        return "tokenizer.model", bytes(data[: random.choice([len(data), random.randrange(len(data))])])
    tree = json.loads(json.dumps(random.choice(jsons)))
    for _ in range(random.randint(1, 3)):
        *above, key = random.choice(list(places(tree)))
        holder = tree
        for step in above:
            holder = holder[step]
        if random.random() < 0.25:
            del holder[key]
        elif random.random() < 0.75:
            holder[key] = json.loads(json.dumps(random.choice(VALUES)))
        else:
            holder[key] = json.loads(json.dumps(random.choice(list(random.choice(jsons).values()))))
    data = bytearray(json.dumps(tree).encode())
    if random.random() < 0.1:
        data[random.randrange(len(data))] = random.randrange(256)
    return "tokenizer.json", bytes(data)


def use(file: Path) -> None:
    """Everything that is done with a tokenizer. Raises what it raises."""
    tokenizer = Tokenizer.load(file)
    for text in ("ab 12", "", "日本 é\n" * 3):
        ids = tokenizer.encode(text)
        tokenizer.decode(ids), list(tokenizer.stream(ids)), tokenizer.pieces(ids)
    tokenizer.pieces(range(min(tokenizer.vocab_size, 300)))
    repr(tokenizer), tokenizer.pieces_hash, tokenizer.to_bytes()


def run(count: int, seed: int, folder: Path) -> tuple[Counter, dict[str, Path]]:
    """How often each outcome came, and the escapes by what they raised and where."""
    random, (jsons, model), counts, escapes = Random(seed), sound(), Counter(), {}
    for n in range(count):
        name, content = mutated(jsons, model, random)
        file = folder / name
        file.write_bytes(content)
        start, what = time.monotonic(), ""
        try:
            use(file)
            counts["read"] += 1
        except ValueError:
            counts["refused"] += 1
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a panic of the library is no Exception
            what = f"{type(error).__name__} at {traceback.extract_tb(error.__traceback__)[-1][1:3]}"
        if time.monotonic() - start > SECONDS:
            what = "no end"
        if what:
            counts["escaped"] += 1
            if what not in escapes:
                escapes[what] = folder / f"escape-{n}-{name}"
                escapes[what].write_bytes(content)
    return counts, escapes


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    counts, escapes = run(arguments.inputs, arguments.seed, Path(tempfile.mkdtemp(prefix="tokenizers-")))
    print(dict(counts))
    for what, file in escapes.items():
        print(f"ESCAPED {what}: {file}")
    return 1 if escapes else 0


if __name__ == "__main__":
    sys.exit(main())
