"""zamba_lab: the laboratory for hybrid state-space/attention language models.

Reading order, each file short enough for one sitting:

    model.py            the walk through depth: embedding, layers, logits. Start here.
    blocks/layers.py    one depth: a Mamba layer, a hybrid layer, a transformer layer
    blocks/shared.py    the shared attention + MLP block, and what each invocation owns
    blocks/mamba2.py    the mixer of Zamba2;  blocks/mamba1.py the mixer of Zamba1
    ops/ssd.py          the Mamba-2 recurrence and its faster forms;  ops/scan.py Mamba-1's
    config/             every switch of the architecture, and what it costs
    trace.py cache.py   looking in, and decoding

Names are loaded on first use, so that `import zamba_lab` costs little more than `import torch`.
"""

from zamba_lab.lazy import lazy
from zamba_lab.version import __version__ as __version__

__all__, __getattr__, __dir__ = lazy(
    __name__,
    {
        "config": "ZambaConfig",
        "model": "Zamba",
        "trace": "Trace OFF",
        "cache": "Cache",
        "checkpoints": "load save CheckpointError doctor",
        "generation": "generate stream",
        "prefixes": "PrefixStore",
        "tokenizer": "Tokenizer",
        "quantization": "quantize",
        "specimens": "specimen",
        "atlases": "atlas",
        "accounting": "cost",
        "pages": "page",
    },
    modules="ablate blocks corpora course lens ops report specimens tasks train viz widgets",
)
