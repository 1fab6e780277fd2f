"""Reading a prompt of 512 tokens at the published shapes, in bfloat16, against transformers, and its workspace.

Random weights, both models on the same files; the logits of the last token only, and the cache, are asked of both.
"The matrix products alone" are the products of this very prefill, back to back into buffers that are there: its floor.
The peer runs at its published chunk size, 256, and at ours, 64. Workspace is the growth of the peak resident size in a
fresh process over the weights, all of which were read before, and over the cache that is handed back.
"""

import json
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
from floors import products_alone
from harness import OURS, fresh, interleaved, median, megabytes, peak_growth, percent, ratio_row, repeats
from pairs import (PEER, PEER_64, PUBLISHED_CHUNK, SMALL_CHUNK, TINY, TOLERANCE, chunked, extend_peer, make, must_agree,
                   peer)

import zamba_lab as zl
from zamba_lab.checkpoints import load_config

WARM, LENGTH, WORKSPACE_AT, WORKSPACE_OURS = 8, 512, 1024, (256, 512, 2048)
TARGETS = {"zamba2-2.7b": (">= 1.8x", ">= 88 %"), "zamba2-1.2b": (">= 2.4x", "")}
FLOOR = "the matrix products alone"


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
        run(WARM)                                                                # it reads every weight
    runs = {**{one: partial(keep, one) for one in todo}, FLOOR: products_alone(config, length, dtype)}
    times = interleaved(runs, repeats(3, quick), warm=False)
    far = max(must_agree(f"prefill {name}, {one}", logits[OURS], logits[one], TOLERANCE[dtype])
              for one in (PEER, PEER_64))
    label, (least, of_floor) = f"prefill {length} tokens, {name}", TARGETS[name]
    shares = sorted(floor / own for floor, own in zip(times[FLOOR], times[OURS]))
    return [*(ratio_row(label, times, OURS, one, least if one == PEER else "") for one in (PEER, PEER_64)),
            {"work": f"{label}: share of the floor", "ratio": percent(shares[len(shares) // 2]), "target": of_floor,
             "spread": f"{percent(shares[0])} .. {percent(shares[-1])} (n={len(shares)})", "ours": OURS,
             "ours took": f"{median(times[OURS]) * 1e3:.0f} ms", "peer": FLOOR,
             "peer took": f"{median(times[FLOOR]) * 1e3:.0f} ms", "seconds": {FLOOR: times[FLOOR]}},
            {"work": f"{label}: difference of the logits", "ratio": f"{far:.2g} of their size"}]


def cache_bytes(cache) -> int:
    """Bytes that a cache keeps: ours says it, transformers' keeps tensors in its layers."""
    if hasattr(cache, "nbytes"):
        return cache.nbytes
    tensors = [value for layer in cache.layers for value in attributes(layer) if isinstance(value, torch.Tensor)]
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


def attributes(layer):
    """What an object holds, directly or in a list or dictionary."""
    for value in vars(layer).values():
        value = list(value.values()) if isinstance(value, dict) else value
        yield from value if isinstance(value, list | tuple) else (value,)


def workspace(name: str, folder: str) -> list[dict]:
    """Rows of memory: against the peer at one length, and ours at others. Each in a fresh process."""
    found = {(one, length): fresh(__file__, folder, one, str(length)) for one, length in
             [*((one, WORKSPACE_AT) for one in (OURS, PEER, PEER_64)), *((OURS, length) for length in WORKSPACE_OURS)]}
    rows, ours = [], found[OURS, WORKSPACE_AT]
    for what, of in (("workspace", 1), ("workspace and cache", 0)):
        rows += [{"work": f"prefill {WORKSPACE_AT} tokens, {name}: {what}", "target": "<= 1/3" if of else "",
                  "ratio": f"{(ours[0] - of * ours[1]) / (theirs[0] - of * theirs[1]):.2f} of the peer's",
                  "ours": OURS, "ours took": megabytes(ours[0] - of * ours[1]),
                  "peer": one, "peer took": megabytes(theirs[0] - of * theirs[1])}
                 for one, theirs in ((one, found[one, WORKSPACE_AT]) for one in (PEER, PEER_64))]
    for (one, length), (growth, cache) in sorted(found.items()):
        if one == OURS:
            rows.append({"work": f"prefill {length} tokens, {name}: workspace", "ours": OURS,
                         "ours took": megabytes(growth - cache), "besides a cache of": megabytes(cache)})
    return rows


def run(quick: bool = False) -> list[dict]:
    rows = []
    for name in TARGETS:
        config, dtype = (TINY, torch.float32) if quick else (zl.ZambaConfig.preset(name), torch.bfloat16)
        with tempfile.TemporaryDirectory() as folder:
            make(config, folder, dtype)
            rows += speed(name, config, folder, dtype, quick)
            if name == "zamba2-2.7b" and not quick:
                rows += workspace(name, folder)
    return rows


def peak(folder: str, name: str, length: str) -> tuple[int, int]:
    """What the fresh process does: bytes of growth, and of the cache that is left."""
    run, kept = readers(folder, [name])[name], []
    growth = peak_growth(lambda: kept.append(run(int(length))), warm=lambda: run(WARM))
    return growth, cache_bytes(kept[0][1])


if __name__ == "__main__":
    print(json.dumps(peak(*sys.argv[1:])))
