"""Ours and transformers' model with the same weights.

Weights go through a folder, as a user's do; both sides map its files into memory, so that the weights of two models
are held once. The peer's clamp on dt is taken off: it is the reader's, not the model's. Its chunk size is the published
one, 256, unless it is set to ours.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import zamba_lab as zl

PUBLISHED_CHUNK, SMALL_CHUNK = 256, 64
PEER, PEER_64 = "transformers", "transformers, chunk 64"
# root mean square of the difference of logits, in units of theirs: bfloat16 rounds at every step of 38 or 54 layers
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05}
TINY = zl.ZambaConfig(
    vocab_size=64, d_model=32, n_layers=3, d_state=8, headdim=8, hybrid_layers=(0, 2), attn_heads=4, d_mlp=32, lora_rank=4
)


@torch.no_grad()
def make(config: zl.ZambaConfig, folder: str | Path, dtype: torch.dtype = torch.bfloat16) -> None:
    """A checkpoint of a shape, cheaply: matrices from one block of random numbers, at scales that keep each part heard.

    One block, because drawing 2.7 billion numbers takes a minute; its length divides no matrix's.
    """
    block = torch.randn(2**24 + 43, generator=torch.Generator().manual_seed(0)).to(dtype)
    with torch.device("meta"):
        model = zl.Zamba(config)
    model = model.to(dtype).to_empty(device="cpu")
    for name, p in model.named_parameters():
        if name.endswith("A_log"):
            p.copy_(torch.linspace(1, 16, p.numel()).log().view(p.shape))
        elif name.endswith("dt_bias"):
            p.copy_(torch.linspace(-6.9, -2.3, p.numel()).view(p.shape))  # dt between 0.001 and 0.1
        elif p.ndim == 1:
            p.fill_(0.0 if "bias" in name else 1.0)
        else:
            scale = 0.5 if "conv" in name or "embedding" in name else 0.7 * p.shape[-1] ** -0.5
            for part in p.view(-1).split(len(block)):
                torch.mul(block[: len(part)], scale, out=part)
    zl.save(model, folder)


def peer(folder: str | Path) -> nn.Module:
    """transformers' reading of a folder, for evaluation, in the dtype of its files."""
    from transformers import AutoModelForCausalLM

    quiet()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    for module in model.modules():
        if hasattr(module, "time_step_limit"):
            module.time_step_limit = (0.0, math.inf)
    return model


def extend_peer(model: nn.Module, ids: Tensor, cache=None) -> tuple[Tensor, object]:
    """The peer's `model.extend(ids, cache, last_only=True)`."""
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"  # renamed in transformers 5.24
    output = model(ids, use_cache=True, logits_to_keep=1, **{name: cache})
    return output.logits, output[name]


def quiet() -> None:
    """No progress bars, and no advice to install kernels for a GPU."""
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def chunked(model: nn.Module, chunk_size: int, run: Callable) -> Callable:
    """`run` with the peer's Mamba-2 layers set to a chunk size."""
    mixers = [module for module in model.modules() if hasattr(module, "chunk_size")]

    def once(*arguments):
        for mixer in mixers:
            mixer.chunk_size = chunk_size
        return run(*arguments)

    return once


@contextmanager
def pscan():
    """transformers' Zamba1 with mamba.py's parallel scan in place of its loop: its own option, which it never sets."""
    from transformers.models.zamba import modeling_zamba as module

    loop = module.mamba_selective_scan
    module.mamba_selective_scan = partial(_with_pscan, loop)
    try:
        yield
    finally:
        module.mamba_selective_scan = loop


def _with_pscan(loop, *arguments, **options):
    return loop(*arguments, **{**options, "use_mambapy": True})


def must_agree(what: str, ours: Tensor, theirs: Tensor, tolerance: float) -> float:
    """The root mean square of the difference in units of theirs; RuntimeError if it is above the tolerance."""
    ours, theirs = ours.detach().double(), theirs.detach().double()
    far = float((ours - theirs).square().mean().sqrt() / theirs.square().mean().sqrt())
    if not far <= tolerance:
        raise RuntimeError(
            f"{what}: the contenders differ by {far:.3g} of the result's size, more than {tolerance}: "
            "what does not compute the same is not compared"
        )
    return far
