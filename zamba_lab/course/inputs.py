"""Arguments for checks, float64, from a seed, of awkward sizes; and those of one head of a trained model."""

import inspect
from importlib import import_module

import torch
from torch import Tensor

from zamba_lab.lens import run
from zamba_lab.model import Zamba

# Modules of Python's standard library. The shipped models were tested on the first eight and have not read them.
MODULES = [
    "sched",
    "secrets",
    "copyreg",
    "traceback",
    "html.parser",
    "venv",
    "email.contentmanager",
    "xml.sax.xmlreader",
    "textwrap",
    "heapq",
    "bisect",
    "shlex",
    "fnmatch",
    "glob",
    "cmd",
    "string",
]


def draw(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Normal numbers of these shapes."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def steps(seed: int, *shape: int) -> Tensor:
    """Step sizes between 0.05 and 1.5."""
    generator = torch.Generator().manual_seed(seed)
    return 0.05 + 1.45 * torch.rand(shape, generator=generator, dtype=torch.float64)


def head_terms(model: Zamba, ids: Tensor, depth: int, head: int) -> tuple[Tensor, ...]:
    """x, dt, A, B, C of one head at the first text of (b, l) ids, as float64.

    x: (l, p). B, C: (l, n). Mamba-2: dt (l,), A a number. Mamba-1: dt (l, p), A (p, n).
    """
    trace = run(model, ids, keep=[f"layers.{depth}.mamba.{name}" for name in ("x", "dt", "B", "C")])
    x, dt, B, C = (trace[f"layers.{depth}.mamba.{name}"][0].double() for name in ("x", "dt", "B", "C"))
    A = -torch.exp(model.layers[depth].mamba.A_log.detach().double())[head]
    group = head * B.shape[1] // x.shape[1]
    return x[:, head], dt[:, head], A if A.ndim else float(A), B[:, group], C[:, group]


def source_texts(model: Zamba, count: int, length: int, skip: int = 0) -> Tensor:
    """The beginnings of modules of Python's standard library, (count, length) ids, after leaving out so many of them.

    Raises ValueError if there are not so many modules.
    """
    if model.tokenizer is None or not 0 < count <= len(MODULES) - skip:
        raise ValueError(f"this needs a model with a tokenizer, and 1 to {len(MODULES) - skip} texts: got count={count}, skip={skip}")
    texts = [inspect.getsource(import_module(name)) for name in MODULES[skip : skip + count]]
    return torch.tensor([model.tokenizer.encode(text)[:length] for text in texts])
