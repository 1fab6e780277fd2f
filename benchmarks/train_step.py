"""A training step (forward, backward, AdamW), against transformers: time, and peak memory.

Zamba2 of about 10 M parameters: d_model 256, 12 layers, hybrid every 4, vocabulary 4096, B=8 T=512. Zamba1 of that
size, two heads, B=1 T=512. An ablation's size: 6 layers, d_model 64, 64 sequences of 32 tokens. All in float32, from
the same weights; the losses of the first steps agree. Ours asks the model for the loss, as training does; the peer's is
torch's cross entropy of its logits. The peer of Zamba2 runs at its published chunk size, 256, and at
ours, 64; that of Zamba1 as it is, a loop over positions, and with mamba.py's pscan in the loop's place. Memory is
that of the first step, gradients and the optimiser's state included.
"""

import json
import sys
import tempfile
from dataclasses import replace

import torch
import torch.nn.functional as F
from harness import OURS, fresh, installed, interleaved, memory_row, peak_growth, ratio_row, repeats
from pairs import PEER, PEER_64, PUBLISHED_CHUNK, SMALL_CHUNK, TINY, chunked, must_agree, peer, pscan

import zamba_lab as zl
from zamba_lab.ops.loss import IGNORE

# fmt: off
ZAMBA2 = zl.ZambaConfig(
    vocab_size=4096, d_model=256, n_layers=12, headdim=64, d_state=64, hybrid_layers=(3, 7, 11), n_shared_blocks=2, attn_heads=8,
    d_mlp=1024, lora_rank=16, init="reference",
)
# fmt: on
ZAMBA1 = replace(ZAMBA2, mixer="mamba1", d_state=16, headdim=256, n_shared_blocks=1, lora_rank=0, rope_theta=None)
ABLATION = replace(
    ZAMBA2, vocab_size=64, d_model=64, n_layers=6, headdim=32, d_state=16, hybrid_layers=(2, 5), attn_heads=4, d_mlp=256, lora_rank=4
)
TINY_1 = replace(TINY, mixer="mamba1", headdim=32, n_shared_blocks=1, lora_rank=0, rope_theta=None)
PEER_PSCAN = "transformers, mamba.py's pscan"
# name: config, batch, length, repeats, what the project set itself against transformers as it is
WORK = {
    "Zamba2": (ZAMBA2, 8, 512, 5, ">= 3x"),
    "Zamba1": (ZAMBA1, 1, 512, 3, ">= 30x"),
    "Zamba2, ablation size": (ABLATION, 64, 32, 15, ">= 5x"),
}
QUICK = {"Zamba2": (TINY, 2, 32, 1, ""), "Zamba1": (TINY_1, 2, 32, 1, "")}


def contenders(config: zl.ZambaConfig, batch: int, length: int) -> dict:
    """Each makes one step and returns its loss. Peers of one row that differ in speed only go on with one model."""
    torch.manual_seed(0)
    ours = zl.Zamba(config)
    with tempfile.TemporaryDirectory() as folder:
        zl.save(ours, folder)
        theirs = peer(folder).train()
        for p in theirs.parameters():  # off the files, which are about to go
            p.data = p.data.clone()
    ids = torch.randint(config.vocab_size, (batch, length))
    follow = F.pad(ids[:, 1:], (0, 1), value=IGNORE)
    once = step(theirs, lambda: F.cross_entropy(theirs(ids, use_cache=False).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()))
    todo = {OURS: step(ours, lambda: ours(ids, targets=follow) / (follow != IGNORE).sum())}
    if config.mixer == "mamba2":
        return todo | {PEER: chunked(theirs, PUBLISHED_CHUNK, once), PEER_64: chunked(theirs, SMALL_CHUNK, once)}
    return todo | {PEER: once} | ({} if installed("mambapy") == "not installed" else {PEER_PSCAN: with_pscan(once)})


def step(model: torch.nn.Module, mean_loss):
    """A function that makes one step and returns the loss before it."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def once():
        loss = mean_loss()
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        return loss.detach()

    return once


def with_pscan(once):
    def run():
        with pscan():
            return once()

    return run


def run(quick: bool = False) -> list[dict]:
    rows = []
    for name, (config, batch, length, count, target) in (QUICK if quick else WORK).items():
        todo = contenders(config, batch, length)
        label = f"training step, {name} {config.n_params / 1e6:.1f} M, B={batch} T={length}"
        peers = [one for one in todo if one != OURS]
        losses = {one: [todo[one]()] for one in (OURS, PEER)}  # also the warm-up of these two
        losses[OURS] += [todo[OURS]() for _ in peers[1:]]
        losses[PEER] += [todo[one]() for one in peers[1:]]  # the second step, by the other peer
        must_agree(label, torch.stack(losses[OURS]), torch.stack(losses[PEER]), 1e-3 if quick else 1e-4)
        times = interleaved(todo, repeats(count, quick), warm=False)
        rows += [ratio_row(label, times, OURS, one, target if one == PEER else "") for one in peers]
        if not quick:
            peaks = {one: fresh(__file__, name, one) for one in todo}
            goal = "<= 1/2" if name == "Zamba2" else ""
            rows += [memory_row(label, peaks, OURS, one, goal if one == PEER else "") for one in peers]
    return rows


def peak(name: str, contender: str) -> int:
    config, batch, length, *_ = WORK[name]
    tiny, *size, _, _ = QUICK["Zamba1" if config.mixer == "mamba1" else "Zamba2"]
    return peak_growth(contenders(config, batch, length)[contender], warm=contenders(tiny, *size)[contender])


if __name__ == "__main__":
    print(json.dumps(peak(*sys.argv[1:])))
