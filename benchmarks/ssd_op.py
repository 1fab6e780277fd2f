"""The SSD op alone, against transformers' torch path: time, and peak memory.

B=1 T=2048 H=80 P=64 N=64 in float32, the shape of a Zamba2-2.7B layer. The peer runs at its published chunk size, 256,
and at ours, 64: the second tells how much of the ratio is the chunk size.
"""

import torch
from harness import interleaved, peak_growth, peak_main, ratio_row

from zamba_lab.ops.ssd import ssd_chunked

SHAPE = dict(b=1, l=2048, h=80, p=64, n=64)
QUICK = dict(b=1, l=256, h=8, p=16, n=16)


@torch.no_grad()
def contenders(b: int, l: int, h: int, p: int, n: int) -> dict:
    from transformers.models.zamba2.modeling_zamba2 import mamba2_chunk_scan
    torch.manual_seed(0)
    x, dt, A = torch.randn(b, l, h, p), torch.rand(b, l, h) / 10, -torch.rand(h) * 16
    B, C = torch.randn(b, l, 1, n), torch.randn(b, l, 1, n)

    def peer(chunk_size):
        with torch.no_grad():
            return mamba2_chunk_scan(x, dt, A, B, C, chunk_size=chunk_size, return_final_states=True)

    def ours():
        with torch.no_grad():
            return ssd_chunked(x, dt, A, B, C)

    return {"ours": ours, "transformers": lambda: peer(256), "transformers, chunk 64": lambda: peer(64)}


def run(quick: bool = False) -> list[dict[str, str]]:
    shape = QUICK if quick else SHAPE
    todo = contenders(**shape)
    for name in ("transformers", "transformers, chunk 64"):                      # the same function, or no comparison
        torch.testing.assert_close(todo["ours"]()[0], todo[name]()[0].float(), rtol=1e-3, atol=1e-3)
    times = interleaved(todo, repeats=2 if quick else 9)
    label = "SSD forward " + " ".join(f"{key.upper()}={value}" for key, value in shape.items())
    rows = [ratio_row(label, times, "ours", peer) for peer in list(todo)[1:]]
    if not quick:
        peak = {name: peak_growth(__file__, name) for name in todo}
        rows += [{"work": "peak memory of the same", "ratio": f"{peak['ours'] / peak[peer]:.2f} of the peer's",
                  "ours": f"{peak['ours'] / 1e6:.0f} MB", peer: f"{peak[peer] / 1e6:.0f} MB"} for peer in list(todo)[1:]]
    return rows


if __name__ == "__main__":
    peak_main(lambda: contenders(**SHAPE))
