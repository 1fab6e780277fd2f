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

from importlib import import_module

from zamba_lab.version import __version__ as __version__

_HOME = {
    "ZambaConfig": "config",
    "Zamba": "model",
    "Trace": "trace",
    "OFF": "trace",
    "Cache": "cache",
    "load": "checkpoints",
    "save": "checkpoints",
    "CheckpointError": "checkpoints",
    "doctor": "checkpoints",
    "generate": "generation",
    "stream": "generation",
    "Tokenizer": "tokenizer",
    "quantize": "quantization",
}
_MODULES = ("ablate", "blocks", "corpora", "lens", "ops", "report", "tasks", "train", "viz", "widgets")
__all__ = list(_HOME)


def __getattr__(name: str):
    if name in _HOME:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
