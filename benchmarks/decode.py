"""Decoding after a prompt of 512 tokens, against transformers with its own cache; nano through `generate` besides.

2.7B and 1.2B shapes in bfloat16 with random weights, both models on the same files; the shipped nano in float32. One
step is one token: logits, their argmax, the cache extended. Both sides are given the same tokens. The share of the read
floor is the time that reading what a token needs takes at the machine's bandwidth, over the time of a step: weights, a
shared block's at every invocation (between two of them a pass reads more than any cache holds), keys and values, and
the states, which are written too.
"""

import tempfile
from functools import partial

import torch
from floors import bytes_per_token, read_bandwidth
from harness import OURS, interleaved, median, percent, ratio_row, repeats
from pairs import PEER, TINY, TOLERANCE, extend_peer, make, must_agree, peer

import zamba_lab as zl
from zamba_lab.config.presets import SHIPPED

PROMPT = 512
# tokens in one turn, turns, what the project set itself against transformers and of the floor
WORK = {"zamba2-2.7b": (4, 5, ">= 2.6x", ">= 75 %"), "zamba2-1.2b": (8, 5, ">= 3x", ">= 75 %"), "zamba2-nano": (64, 9, ">= 5x", "")}


class Decoder:
    """A model after its prompt; `run` decodes so many given tokens and goes on from there the next time."""

    def __init__(self, extend, ids: torch.Tensor, tokens: int):
        self.extend, self.ids, self.tokens, self.at = extend, ids, tokens, PROMPT
        self.logits, self.cache = self.step(ids[:, :PROMPT], None)

    @torch.inference_mode()
    def step(self, ids: torch.Tensor, cache):
        logits, cache = self.extend(ids, cache)
        logits.argmax(-1).item()
        return logits, cache

    def run(self) -> None:
        for _ in range(self.tokens):
            self.logits, self.cache = self.step(self.ids[:, self.at : self.at + 1], self.cache)
            self.at += 1


def steps(name: str, folder: str, quick: bool) -> list[dict]:
    """The rows of one model, decoded step by step."""
    tokens, turns, least, of_floor = WORK[name]
    tokens, ours, theirs = 2 if quick else tokens, zl.load(folder), peer(folder)
    turns, config, dtype = repeats(turns, quick), ours.config, ours.embedding.weight.dtype
    torch.manual_seed(0)
    ids = torch.randint(config.vocab_size, (1, PROMPT + tokens * (turns + 1)))
    both = {OURS: Decoder(partial(ours.extend, last_only=True), ids, tokens), PEER: Decoder(partial(extend_peer, theirs), ids, tokens)}
    must_agree(f"{name}, prompt", both[OURS].logits, both[PEER].logits, TOLERANCE[dtype])
    times = interleaved({one: decoder.run for one, decoder in both.items()}, turns)
    far = must_agree(f"{name}, decoding", both[OURS].logits, both[PEER].logits, TOLERANCE[dtype])
    times = {one: [seconds / tokens for seconds in several] for one, several in times.items()}
    label, step = f"decoding after {PROMPT}, {name}, a token", median(times[OURS])
    speed, way = read_bandwidth(quick)
    size = bytes_per_token(config, PROMPT, dtype)
    return [
        ratio_row(label, times, OURS, PEER, least)
        | {"tokens/s": f"{1 / step:.1f}, {1 / median(times[PEER]):.1f}", "difference": f"{far:.3g}"},
        {
            "work": f"{label}: share of the read floor",
            "ratio": percent(size / speed / step),
            "target": of_floor,
            "ours": OURS,
            "ours took": f"{1e3 * step:.2f} ms",
            "peer": f"reading {size / 1e9:.3g} GB at {speed / 1e9:.1f} GB/s ({way})",
            "peer took": f"{1e3 * size / speed:.2f} ms",
        },
    ]


def through_generate(quick: bool) -> list[dict]:
    """Nano through each side's own `generate`, prompt included, greedy, no stop token."""
    folder, tokens = SHIPPED["zamba2-nano"], 4 if quick else 128
    ours, theirs = zl.load("zamba2-nano"), peer(folder)
    ids = torch.randint(5, ours.config.vocab_size, (1, 16), generator=torch.Generator().manual_seed(0))
    options = dict(do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens, attention_mask=torch.ones_like(ids))
    todo = {OURS: lambda: zl.generate(ours, ids, tokens), PEER: lambda: theirs.generate(ids, **options)[:, 16:]}
    if not quick and (todo[OURS]()[:, :16] != todo[PEER]()[:, :16]).any():
        raise RuntimeError("zamba2-nano: the contenders write different texts")
    times = interleaved(todo, repeats(9, quick))
    return [ratio_row(f"generate, zamba2-nano, {tokens} tokens after 16", times, OURS, PEER)]


def run(quick: bool = False) -> list[dict]:
    rows = []
    for name in WORK:
        if name == "zamba2-nano":
            rows += steps(name, str(SHIPPED[name]), quick) + through_generate(quick)
            continue
        with tempfile.TemporaryDirectory() as folder:
            make(TINY if quick else zl.ZambaConfig.preset(name), folder, torch.float32 if quick else torch.bfloat16)
            rows += steps(name, folder, quick)
    return rows
