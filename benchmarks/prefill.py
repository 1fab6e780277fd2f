"""Reading a prompt of 512 tokens at the published shapes, in bfloat16, against transformers.

Random weights, both models on the same files; the logits of the last token only, and the cache, are asked of both.
"The matrix products alone" are the products of this very prefill by torch, back to back into buffers that are there: its floor. On a
matrix unit the lab's own products are faster, so there is a row for those, too. Prompt and products take turns of their own, without
the peer, which takes four times as long. The peer runs at its published chunk size, 256, and at ours, 64.
"""

import tempfile
from functools import partial

import torch
from floors import products_alone
from harness import OURS, interleaved, median, percent, ratio_row, repeats
from pairs import PEER, PEER_64, PUBLISHED_CHUNK, SMALL_CHUNK, TINY, TOLERANCE, chunked, extend_peer, make, must_agree, peer

import zamba_lab as zl
from zamba_lab.checkpoints import load_config

WARM, LENGTH = 8, 512
TARGETS = {"zamba2-2.7b": (">= 1.8x", ">= 88 %"), "zamba2-1.2b": (">= 2.4x", "")}
FLOOR, OWN_FLOOR = "the matrix products alone", "the matrix products alone, by ours"


def readers(folder: str, names=(OURS, PEER, PEER_64)) -> dict:
    """Each reads a prompt of so many tokens and returns the last one's logits and its cache."""
    vocab_size, todo = load_config(folder).vocab_size, {}
    if OURS in names:
        ours = zl.load(folder)
        todo[OURS] = partial(read, partial(ours.extend, last_only=True), vocab_size)
    if PEER in names or PEER_64 in names:
        theirs = peer(folder)
        todo[PEER] = chunked(theirs, PUBLISHED_CHUNK, partial(read, partial(extend_peer, theirs), vocab_size))
        todo[PEER_64] = chunked(theirs, SMALL_CHUNK, partial(read, partial(extend_peer, theirs), vocab_size))
    return {name: todo[name] for name in names}


@torch.inference_mode()
def read(extend, vocab_size: int, length: int):
    return extend(torch.randint(vocab_size, (1, length), generator=torch.Generator().manual_seed(0)))


def speed(name: str, config: zl.ZambaConfig, folder: str, dtype: torch.dtype, quick: bool) -> list[dict]:
    length, logits, todo = 70 if quick else LENGTH, {}, readers(folder)

    def keep(one: str) -> None:
        logits[one] = todo[one](length)[0]

    for run in todo.values():
        run(WARM)  # it reads every weight
    times = interleaved({one: partial(keep, one) for one in todo}, repeats(5, quick), warm=False)
    beside = interleaved(
        {
            OURS: partial(keep, OURS),
            FLOOR: products_alone(config, length, dtype),
            OWN_FLOOR: products_alone(config, length, dtype, ours=True),
        },
        repeats(15, quick),
    )
    far = max(must_agree(f"prefill {name}, {one}", logits[OURS], logits[one], TOLERANCE[dtype]) for one in (PEER, PEER_64))
    label, (least, of_floor) = f"prefill {length} tokens, {name}", TARGETS[name]
    return [
        *(ratio_row(label, times, OURS, one, least if one == PEER else "") for one in (PEER, PEER_64)),
        share(f"{label}: share of the floor", beside, FLOOR, of_floor),
        share(f"{label}: share of our own products", beside, OWN_FLOOR),
        {"work": f"{label}: difference of the logits", "ratio": f"{far:.2g} of their size"},
    ]


def share(work: str, times: dict[str, list[float]], floor: str, target: str = "") -> dict:
    """What part of our time a floor takes, in pairs of runs."""
    shares = sorted(least / own for least, own in zip(times[floor], times[OURS]))
    return {
        "work": work,
        "ratio": percent(shares[len(shares) // 2]),
        "target": target,
        "spread": f"{percent(shares[0])} .. {percent(shares[-1])} (n={len(shares)})",
        "ours": OURS,
        "ours took": f"{median(times[OURS]) * 1e3:.0f} ms",
        "peer": floor,
        "peer took": f"{median(times[floor]) * 1e3:.0f} ms",
        "seconds": {floor: times[floor]},
    }


def at_published_shapes(rows_of, quick: bool) -> list[dict]:
    """The rows of each target's shape, with random weights in a folder of their own; quick: a tiny one in its place."""
    rows = []
    for name in TARGETS:
        config, dtype = (TINY, torch.float32) if quick else (zl.ZambaConfig.preset(name), torch.bfloat16)
        with tempfile.TemporaryDirectory() as folder:
            make(config, folder, dtype)
            rows += rows_of(name, config, folder, dtype, quick)
    return rows


def run(quick: bool = False) -> list[dict]:
    return at_published_shapes(speed, quick)
