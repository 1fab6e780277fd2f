"""The atlas of a model: one page, which needs no network, with what each of its parts is, does and is worth.

    zl.atlas(zl.load("zamba2-nano"), "runs/atlas")      # or: zamba-lab atlas zamba2-nano -o runs/atlas

build.py    `atlas`: the pages one after the other, each kept when it is done
pages.py    what each page shows, by `lens` and `viz`;  experiments.py  the pages that change the model
material.py the texts and sizes;  command.py  `zamba-lab atlas`
html.py     the pages as one file
"""

from zamba_lab.lazy import lazy

__all__, __getattr__, __dir__ = lazy(__name__, {"build": "atlas", "material": "FULL QUICK Size"})
