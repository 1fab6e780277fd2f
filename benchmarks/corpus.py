"""Making a corpus, on one core: tokens and near duplicates of real text, in megabytes of it a second; and what is found.

The text is the running interpreter's standard library with its help topics, before duplicates are removed. "tokenise +
deduplicate" is the ids of every document (the vocabulary of zamba2-nano, by the library `tokenizers`, which is most of the time), its
signature of 128 values over 25-character grams, and the search for duplicates in 8 bands with every candidate verified; its peer
does the same with the library `datasketch` on a part of the text. "build" is all of it: reading, rules, hashes,
files. Peers of the signature take a list of grams, so making that list is part of their time; `rensa` is Rust. What they
estimate is compared with the exact similarity of pairs. Recall and false positives are of planted text: pairs whose
similarity is spread evenly over [0.9, 1], in three kinds of edits; and texts that share 50 to 88 % of a page, or nothing.
"""

import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from harness import HERE, OURS, interleaved, ratio_row, repeats, time_row

from zamba_lab import corpora
from zamba_lab.corpora.duplicates import THRESHOLD
from zamba_lab.corpora.grams import SIGNATURE, band_keys, chance, normal, signatures
from zamba_lab.corpora.stdlib import stdlib_sources
from zamba_lab.corpora.tokens import encode
from zamba_lab.tokenizer import Tokenizer

sys.path.append(str(HERE.parent / "tests"))
from corpora_planted import hard_negatives, near_pairs

TARGET = ">= 5 MB/s"
LIBRARIES, DATASKETCH, RENSA = "tokenizers + datasketch", "datasketch", "rensa"


def run(quick: bool = False) -> list[dict]:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # one core: that is the claim
    documents = [document.text for document in stdlib_sources()][:: 40 if quick else 1]
    tokenizer = Tokenizer.load(HERE.parent / "data" / "zamba2-nano")
    times = interleaved({OURS: lambda: both(documents, tokenizer)}, repeats(7, quick), warm=not quick)
    rows = [time_row(f"tokenise + deduplicate, {label(documents)}", OURS, times[OURS], **rate(documents, times[OURS]))]
    rows += against_libraries(documents, tokenizer, quick)
    rows.append(whole(documents, tokenizer, quick))
    return rows + found(60 if quick else 900)


def both(documents: list[str], tokenizer: Tokenizer) -> tuple[list[np.ndarray], corpora.Duplicates]:
    keys = band_keys(signatures(documents, len(documents)))
    order = sorted(range(len(documents)), key=lambda k: -len(documents[k]))
    gone = corpora.find_duplicates([text.encode() for text in documents], keys, order, documents.__getitem__)
    return tokenise(documents, tokenizer), gone


def tokenise(documents: list[str], tokenizer: Tokenizer) -> list[np.ndarray]:
    return [encode(text, tokenizer) for text in documents]


def against_libraries(documents: list[str], tokenizer: Tokenizer, quick: bool) -> list[dict]:
    """Signatures by each library that is installed, and all of the work by libraries."""
    part = documents[::20]  # they are slow
    peers = {name: sign for name, sign in ((DATASKETCH, by_datasketch), (RENSA, by_rensa)) if find_spec(name)}
    for name in (DATASKETCH, RENSA):
        if name not in peers:
            print(f"{name} is not installed: its row is left out. pip install 'zamba-lab[bench]'", file=sys.stderr)
    pairs = near_pairs(seed=7, count=12 if quick else 60, low=0.8)
    for name, sign in ({OURS: ours_sign} | peers).items():
        must_estimate(name, sign, pairs)
    todo = {OURS: lambda: ours_sign(part)} | {name: (lambda sign=sign: sign(part)) for name, sign in peers.items()}
    times = interleaved(todo, repeats(3, quick), warm=not quick)
    rows = [ratio_row(f"signatures, {label(part)}", times, OURS, name) | rate(part, times[OURS], "") for name in peers]
    if DATASKETCH in peers:
        times = interleaved(
            {OURS: lambda: both(part, tokenizer), LIBRARIES: lambda: by_libraries(part, tokenizer)}, repeats(3, quick), warm=not quick
        )
        rows.append(ratio_row(f"tokenise + deduplicate, {label(part)}", times, OURS, LIBRARIES) | rate(part, times[OURS], ""))
    return rows


def ours_sign(texts: list[str]) -> np.ndarray:
    return signatures(texts, len(texts))


def by_datasketch(texts: list[str]) -> np.ndarray:
    return np.array([sketch.hashvalues for sketch in sketches(texts)])


def sketches(texts: list[str]):
    from datasketch import MinHash

    for text in texts:
        sketch = MinHash(num_perm=SIGNATURE)
        sketch.update_batch([gram.encode() for gram in grams_of(text)])
        yield sketch


def by_rensa(texts: list[str]) -> np.ndarray:
    from rensa import RMinHash

    found = []
    for text in texts:
        sketch = RMinHash(num_perm=SIGNATURE, seed=0)
        sketch.update(grams_of(text))
        found.append(sketch.digest())
    return np.array(found)


def grams_of(text: str) -> list[str]:
    whole = normal(text)
    return [whole[at : at + corpora.grams.GRAM] for at in range(len(whole) - corpora.grams.GRAM + 1)]


def by_libraries(texts: list[str], tokenizer: Tokenizer) -> None:
    from datasketch import MinHashLSH

    tokenise(texts, tokenizer)
    index = MinHashLSH(num_perm=SIGNATURE, params=(corpora.grams.BANDS, corpora.grams.ROWS))
    for k, sketch in enumerate(sketches(texts)):
        index.query(sketch)
        index.insert(k, sketch)


def must_estimate(name: str, sign, pairs: list) -> None:
    """Every contender's signatures must estimate the similarity: the mean over pairs to within four standard errors."""
    values = [(a == b).mean() for a, b in (sign(list(pair[:2])) for pair in pairs)]
    exact = np.array([pair[3] for pair in pairs])
    error = np.sqrt((exact * (1 - exact) / SIGNATURE).mean() / len(pairs))
    if abs(np.mean(values) - exact.mean()) > 4 * error:
        raise RuntimeError(
            f"{name}: mean estimate {np.mean(values):.4f}, similarity {exact.mean():.4f} +- {error:.4f}: "
            "what does not compute the same is not compared"
        )


def whole(documents: list[str], tokenizer: Tokenizer, quick: bool) -> dict:
    """`build` of files in a folder, one worker."""
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts"
        texts.mkdir()
        for k, text in enumerate(documents):
            (texts / f"{k:05}.py").write_text(text, encoding="utf-8", newline="")
        source, count = corpora.Folder(texts, rules=corpora.CODE), iter(range(10**6))
        times = interleaved(
            {OURS: lambda: corpora.build(source, Path(folder) / f"out{next(count)}", tokenizer)}, repeats(3, quick), warm=False
        )[OURS]
    return time_row(f"build, {label(documents)}", OURS, times, **rate(documents, times, ""))


def found(count: int) -> list[dict]:
    """Recall and false positives on planted text; no times."""
    pairs, others = near_pairs(seed=11, count=count), hard_negatives(seed=12, count=count)
    texts = [text for pair in pairs for text in pair[:2]] + others
    keys = band_keys(signatures(texts, len(texts)))
    gone = corpora.find_duplicates([text.encode() for text in texts], keys, range(len(texts)), texts.__getitem__)
    caught = sum(2 * k + 1 in gone for k in range(count))
    wrong = sum(k in gone for k in range(2 * count, len(texts)))
    expected = np.mean([chance(pair[3]) for pair in pairs])
    recall = time_row(f"near duplicates found, {count} pairs of similarity 0.9 to 1", OURS, [0.0], target=">= 95 %") | {
        "ours took": "",
        "ratio": f"{100 * caught / count:.1f} % (the S-curve says {100 * expected:.1f} %)",
    }
    false = time_row(f"false positives, {count} texts alike below {THRESHOLD}", OURS, [0.0], target="<= 1 %") | {
        "ours took": "",
        "ratio": f"{100 * wrong / count:.2f} %",
    }
    for row in (recall, false):
        row.pop("seconds")
    return [recall, false]


def label(documents: list[str]) -> str:
    return f"{size(documents):.1f} MB in {len(documents)} documents"


def size(documents: list[str]) -> float:
    return sum(len(text.encode()) for text in documents) / 1e6


def rate(documents: list[str], times: list[float], target: str = TARGET) -> dict[str, str]:
    speeds = sorted(size(documents) / seconds for seconds in times)
    return {"rate": f"{np.median(speeds):.1f} MB/s ({speeds[0]:.1f} .. {speeds[-1]:.1f}, n={len(speeds)})", "target": target}
