"""The memory that reading a prompt takes besides weights and cache, at the shape of Zamba2-2.7B in bfloat16.

Workspace is the growth of the peak resident size in a fresh process over the weights, all of which were read before, and
over the cache that is handed back. Against transformers at one length, at its published chunk size, 256, and at ours, 64; and
ours at several lengths, over which it is to stay the same.
"""

import json
import sys
import tempfile

import torch
from harness import OURS, fresh, megabytes, peak_growth
from pairs import PEER, PEER_64, TINY, make
from prefill import WARM, readers

import zamba_lab as zl

NAME, AT, LENGTHS = "zamba2-2.7b", 1024, (256, 512, 2048)
QUICK_AT, QUICK_LENGTHS = 24, (16,)


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


def workspace(name: str, folder: str, measure, at: int, lengths: tuple[int, ...]) -> list[dict]:
    """Rows of memory: against the peer at one length, and ours at others."""
    found = {
        (one, length): measure(folder, one, str(length))
        for one, length in [*((one, at) for one in (OURS, PEER, PEER_64)), *((OURS, length) for length in lengths)]
    }
    rows, ours = [], found[OURS, at]
    for what, of in (("workspace", 1), ("workspace and cache", 0)):
        rows += [
            {
                "work": f"prefill {at} tokens, {name}: {what}",
                "target": "<= 1/3" if of else "",
                "ratio": share(ours[0] - of * ours[1], theirs[0] - of * theirs[1]),
                "ours": OURS,
                "ours took": megabytes(ours[0] - of * ours[1]),
                "peer": one,
                "peer took": megabytes(theirs[0] - of * theirs[1]),
            }
            for one, theirs in ((one, found[one, at]) for one in (PEER, PEER_64))
        ]
    for (one, length), (growth, cache) in sorted(found.items()):
        if one == OURS:
            rows.append(
                {
                    "work": f"prefill {length} tokens, {name}: workspace",
                    "ours": OURS,
                    "ours took": megabytes(growth - cache),
                    "besides a cache of": megabytes(cache),
                }
            )
    return rows


def share(ours: int, theirs: int) -> str:
    return f"{ours / theirs:.2f} of the peer's" if theirs > 0 else "the peer's is too small to see"


def run(quick: bool = False) -> list[dict]:
    with tempfile.TemporaryDirectory() as folder:
        if quick:
            make(TINY, folder, torch.float32)
            return workspace("tiny", folder, peak, QUICK_AT, QUICK_LENGTHS)
        make(zl.ZambaConfig.preset(NAME), folder, torch.bfloat16)
        return workspace(NAME, folder, lambda *given: fresh(__file__, *given), AT, LENGTHS)


def peak(folder: str, name: str, length: str) -> tuple[int, int]:
    """What the fresh process does: bytes of growth, and of the cache that is left."""
    run, kept = readers(folder, [name])[name], []
    growth = peak_growth(lambda: kept.append(run(int(length))), warm=lambda: run(WARM))
    return growth, cache_bytes(kept[0][1])


if __name__ == "__main__":
    print(json.dumps(peak(*sys.argv[1:])))
