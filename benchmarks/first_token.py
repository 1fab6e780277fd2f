"""From nothing to the first token: load a checkpoint and run a prompt of one token, against transformers.

A random bfloat16 checkpoint of Zamba2-1.2B's shape, in the system's cache; contenders take turns, each run in a fresh
process. "imports excluded" is from the call of `load` to the token; "imports included" from the start of the process.
`load` looks at every weight, for NaN, unless `check=False`; transformers does not.
"""

import json
import sys
import tempfile
import time
from functools import partial

import torch
from harness import fresh, interleaved, ratio_row, repeats
from pairs import PEER, TINY, TOLERANCE, make, must_agree, quiet

import zamba_lab as zl

OURS = ("ours", "ours, check=False")


def once(contender: str, folder: str) -> dict[str, float | list[float]]:
    """What the fresh process does: seconds from load to token, the time on the clock then, and the logits."""
    if contender == PEER:
        from transformers import Zamba2ForCausalLM  # importing is not loading

        quiet()
    else:
        _ = zl.load
    ids, start = torch.tensor([[5]]), time.perf_counter()
    with torch.no_grad():
        if contender == PEER:
            peer = Zamba2ForCausalLM.from_pretrained(folder, dtype="auto").eval()
            logits = peer(ids, use_cache=True, logits_to_keep=1).logits
        else:
            logits = zl.load(folder, check="check=False" not in contender).extend(ids, last_only=True)[0]
        logits.argmax(-1).item()
    took, ready = time.perf_counter() - start, time.time()
    return {"seconds": took, "ready": ready, "logits": logits.flatten()[:1000].tolist()}


def timed(run, contender: str, folder: str, found: list[dict]) -> None:
    started = time.time()
    result = run(contender, folder)
    found.append(result | {"whole": result["ready"] - started})


def run(quick: bool = False) -> list[dict]:
    config, dtype = (TINY, torch.float32) if quick else (zl.ZambaConfig.preset("zamba2-1.2b"), torch.bfloat16)
    rows, how = [], once if quick else partial(fresh, __file__)  # quick ones run in this process
    with tempfile.TemporaryDirectory() as folder:
        make(config, folder, dtype)
        found = {name: [] for name in (*OURS, PEER)}
        turns = {name: partial(timed, how, name, folder, found[name]) for name in found}
        interleaved(turns, repeats(7, quick), warm=not quick)
    logits = {name: torch.tensor(several[0]["logits"]) for name, several in found.items()}
    for name in OURS:
        must_agree(f"first token, {name}", logits[name], logits[PEER], TOLERANCE[dtype])
    for key, words in (("seconds", "imports excluded"), ("whole", "imports included")):
        times = {name: [one[key] for one in several[not quick :]] for name, several in found.items()}  # not the warm-up
        rows += [
            ratio_row(
                f"load {2 * config.n_params / 1e9:.2f} GB and first token, {words}", times, name, PEER, ">= 5x" if key == "seconds" else ""
            )
            for name in OURS
        ]
    return rows


if __name__ == "__main__":
    print(json.dumps(once(*sys.argv[1:])))
