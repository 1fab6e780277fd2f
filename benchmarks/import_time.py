"""What importing costs, beside `import torch`: whole fresh processes, taken in turns.

Names of the package are loaded on first use, so `import zamba_lab` alone is little; the second row loads what a first
cell does, a model's class and `load`, and with them torch. The peer of the third is transformers' Zamba2.
"""

import subprocess
import sys

from harness import HERE, interleaved, package_path, ratio_row, repeats

TORCH, FIRST_CELL, TRANSFORMERS = ("import torch", "import zamba_lab as zl; zl.Zamba; zl.load; zl.generate",
                                   "from transformers import Zamba2ForCausalLM")
# ours, peer, what the project set itself; a ratio above 1 is ours being faster
ROWS = (("import zamba_lab", TORCH, ">= 0.87x (at most 1.15 times its time)"), (FIRST_CELL, TORCH, ""),
        (FIRST_CELL, TRANSFORMERS, ""))


def process(code: str):
    return lambda: subprocess.run([sys.executable, "-c", code], check=True, env=package_path(), cwd=HERE)


def run(quick: bool = False) -> list[dict]:
    wanted = [row for row in ROWS if not quick or TRANSFORMERS not in row]
    codes = dict.fromkeys(code for ours, peer, _ in wanted for code in (ours, peer))
    times = interleaved({code: process(code) for code in codes}, repeats(15, quick), warm=not quick)
    return [ratio_row("import, whole process", times, ours, peer, target) for ours, peer, target in wanted]
