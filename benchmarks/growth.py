"""How a forward pass grows with its length: linear but for attention.

T(2l) / T(l) at one size, d_model 256, 4 layers: pure Mamba-2 and Mamba-1, a hybrid with one invocation, and a
transformer. 2 is linear growth, 4 quadratic.
"""

import statistics
from dataclasses import replace

import torch
from harness import interleaved

import zamba_lab as zl

BASE = zl.ZambaConfig(vocab_size=256, d_model=256, n_layers=4, hybrid_layers=(2,), n_shared_blocks=1, attn_heads=8)
PURE = replace(BASE, n_shared_blocks=0)
ARMS = {"Mamba-2": PURE, "Mamba-1": replace(PURE, mixer="mamba1", d_state=16), "hybrid": BASE,
        "transformer": replace(PURE, mixer="attention")}


def run(quick: bool = False) -> list[dict[str, str]]:
    lengths, repeats = ((64, 128), 2) if quick else ((1024, 2048, 4096, 8192), 3)
    rows = []
    for name, config in ARMS.items():
        torch.manual_seed(0)
        model, ids = zl.Zamba(config), torch.randint(256, (1, lengths[-1]))

        def forward(l):
            with torch.no_grad():
                return model.extend(ids[:, :l], last_only=True)

        times = interleaved({str(l): lambda l=l: forward(l) for l in lengths}, repeats)
        median = {l: statistics.median(times[str(l)]) for l in lengths}
        rows.append({"work": f"forward, {name}", **{f"l={l}": f"{1e3 * median[l]:.0f} ms" for l in lengths},
                     **{f"T({2 * l})/T({l})": f"{median[2 * l] / median[l]:.2f}" for l in lengths[:-1]}})
    return rows
