"""Native forms of the operations in `ops/`: C compiled for this machine on first use, and on CUDA the published kernels.

    find(name, *tensors)   the native form that serves these tensors now, or None    off()     a context without native forms
    available()            whether there is a native library; compiles it if need be  why_not()  the reason if there is none

`door.py` decides, `build.py` compiles; README.md says how the choice is made, how to switch it off, and why it is C.
"""

from zamba_lab.native.build import available, why_not
from zamba_lab.native.door import find, off

__all__ = ["available", "find", "off", "why_not"]
