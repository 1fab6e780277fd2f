"""What importing costs, beside `import torch`: whole fresh processes, taken in turns.

Names of the package are loaded on first use, so `import zamba_lab` alone is little; the second row loads what a first
cell does, a model's class and `load`, and with them torch. The peer of the third is transformers' Zamba2.
"""

import subprocess
import sys

from harness import HERE, interleaved, median, package_path, ratio_row, repeats

TORCH, FIRST_CELL, TRANSFORMERS = (
    "import torch",
    "import zamba_lab as zl; zl.Zamba; zl.load; zl.generate",
    "from transformers import Zamba2ForCausalLM",
)
# ours, peer, what the project set itself
ROWS = (("import zamba_lab", TORCH, "<= 1.15"), (FIRST_CELL, TORCH, ""), (FIRST_CELL, TRANSFORMERS, ""))


def process(code: str):
    return lambda: subprocess.run([sys.executable, "-c", code], check=True, env=package_path(), cwd=HERE)


def run(quick: bool = False) -> list[dict]:
    wanted = [row for row in ROWS if not quick or TRANSFORMERS not in row]
    codes = dict.fromkeys(code for ours, peer, _ in wanted for code in (ours, peer))
    times = interleaved({code: process(code) for code in codes}, repeats(15, quick), warm=not quick)
    rows = []
    for ours, peer, target in wanted:
        shares = sorted(own / other for own, other in zip(times[ours], times[peer]))
        rows.append(
            ratio_row("import, whole process", times, ours, peer, target)
            | {"ratio": f"{median(shares):.2f} of the peer's time", "spread": f"{shares[0]:.2f} .. {shares[-1]:.2f} (n={len(shares)})"}
        )
    return rows
