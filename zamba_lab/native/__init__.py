"""The same operations, fast: C compiled for this machine on first use, and on CUDA the published kernels (`gpu.py`).

`ops/` picks them where they can serve and its own pure forms elsewhere; nothing else needs to know. README.md here says
why C, what was measured to choose it, and what a kernel promises.

    available()    whether they can be used here; the first call compiles      why_not()    the reason if not
    off()          a context in which the pure forms answer
"""

from zamba_lab.native.build import available, why_not
from zamba_lab.native.call import off, serves
from zamba_lab.native.conv import MOST_TAPS, conv_silu
from zamba_lab.native.gate import gated
from zamba_lab.native.mixer1 import mamba1
from zamba_lab.native.mixer2 import mamba2
from zamba_lab.native.norm import rms_norm
from zamba_lab.native.scan import selective_scan
from zamba_lab.native.ssd import ssd
from zamba_lab.native.turn import turn

__all__ = [
    "MOST_TAPS",
    "available",
    "conv_silu",
    "gated",
    "mamba1",
    "mamba2",
    "off",
    "rms_norm",
    "selective_scan",
    "serves",
    "ssd",
    "turn",
    "why_not",
]
