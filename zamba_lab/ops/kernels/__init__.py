"""The same operations, native: C compiled for this machine on first use, behind torch operators.

`ops/` picks them where they can serve and its own pure forms elsewhere; nothing else needs to know. README.md here says
why C, what was measured to choose it, and what a kernel promises.

    available()    whether they can be used here; the first call compiles      why_not()    the reason if not
    off()          a context in which the pure forms answer
"""

from zamba_lab.ops.kernels.build import available, why_not
from zamba_lab.ops.kernels.call import off, serves
from zamba_lab.ops.kernels.scan import selective_scan
from zamba_lab.ops.kernels.ssd import ssd

__all__ = ["available", "off", "selective_scan", "serves", "ssd", "why_not"]
