"""Activation checkpointing: what it saves of a training step's memory, and what that costs of its time.

The gradient of one step of a Zamba2 of 24 layers, d_model 256, hybrid every 4, vocabulary 4096, in float32, of the mean loss
over B=2 T=1024; with each layer's activations kept, and with only its input kept and the layer computed again. The gradients
agree to the last bit. Memory is the growth of the peak resident size, the gradients included, weights not.
"""

import json
import sys
from dataclasses import replace

import torch
from harness import factor, fresh, interleaved, median, megabytes, milliseconds, peak_growth, repeats
from pairs import TINY, must_agree
from train_step import ZAMBA2

import zamba_lab as zl
from zamba_lab.train.step import gradient

DEEP = replace(ZAMBA2, n_layers=24, hybrid_layers=(3, 7, 11, 15, 19, 23))
KEPT, AGAIN = "activations kept", "checkpointing"
WORK, QUICK = (DEEP, 2, 1024, 3), (TINY, 2, 32, 1)


def contenders(config: zl.ZambaConfig, batch: int, length: int) -> dict:
    """Each gives the loss, with the gradient in the parameters."""
    torch.manual_seed(0)
    model = zl.Zamba(config)
    ids = torch.randint(config.vocab_size, (batch, length + 1))

    def run(on: bool):
        model.recompute = on
        model.zero_grad(set_to_none=True)
        gradient(model, [(ids[:, :-1], ids[:, 1:])])
        return torch.cat([parameter.grad.flatten() for parameter in model.parameters()]) if config is not DEEP else None

    return {KEPT: lambda: run(False), AGAIN: lambda: run(True)}


def run(quick: bool = False) -> list[dict]:
    must_agree("gradients with and without checkpointing", *(once() for once in contenders(*QUICK[:3]).values()), 1e-12)
    config, batch, length, count = QUICK if quick else WORK
    times = interleaved(contenders(config, batch, length), repeats(count, quick))
    slower = sorted(again / kept for kept, again in zip(times[KEPT], times[AGAIN]))
    label = f"gradient, {config.n_params / 1e6:.1f} M, {config.n_layers} layers, B={batch} T={length}"
    rows = [
        {
            "work": label,
            "ratio": f"{median(slower):.2f} of the time",
            "target": "" if quick else "<= 1.4",
            "spread": f"{slower[0]:.2f} .. {slower[-1]:.2f} (n={len(slower)})",
            "ours": AGAIN,
            "ours took": milliseconds(times[AGAIN]),
            "peer": KEPT,
            "peer took": milliseconds(times[KEPT]),
            "seconds": times,
        }
    ]
    if not quick:
        peaks = {name: fresh(__file__, name) for name in (KEPT, AGAIN)}
        rows.append(
            {
                "work": f"{label}: peak memory",
                "ratio": f"{factor(peaks[KEPT] / peaks[AGAIN])} less",
                "target": ">= 2x",
                "ours": AGAIN,
                "ours took": megabytes(peaks[AGAIN]),
                "peer": KEPT,
                "peer took": megabytes(peaks[KEPT]),
            }
        )
    return rows


if __name__ == "__main__":
    print(json.dumps(peak_growth(contenders(*WORK[:3])[sys.argv[1]], warm=contenders(*QUICK[:3])[sys.argv[1]])))
