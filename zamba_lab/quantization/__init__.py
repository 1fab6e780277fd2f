"""Smaller weights for inference: matrices of 8 or 4 bits, each weight rounded to the nearest number, without calibration data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

from zamba_lab.accounting import GROUPS, KEEP, PARTS, group_of
from zamba_lab.blocks.linear import Embedding, Linear
from zamba_lab.quantization.int4 import Int4Embedding, Int4Linear, why_not_packed
from zamba_lab.quantization.int8 import Int8Embedding, Int8Linear, Quantised

if TYPE_CHECKING:
    from zamba_lab.model import Zamba

# What stays as it is, and why. The first three are parts that `keep` names; the rest is never rounded.
STAYS = {
    "embedding": "every token is one of its rows, and as a tied head it sets small differences between logits",
    "head": "its rounding is that of the logits",
    "adapters": "few weights, of low rank, that tell the invocations of a shared block apart",
    "A_log": "a decay of 0.999 a token forgets in 1,000 tokens: an error in it grows with the context",
    "dt_bias": "as A_log",
    "D": "a number a head",
    "conv_weight": "four taps a channel",
    "conv_bias": "a number a channel",
    "norm": "a number a channel",
    "bias": "a number a row",
    "x_proj": "Mamba-1: what dt, B and C come from, a few columns",
    "dt_proj": "as x_proj",
}


def quantize(model: Zamba, bits: int = 8, group_size: int = 64, keep: Iterable[str] = KEEP) -> Zamba:
    """Round the weight matrices of a model to 8 or 4 bits, in place; a shared block's once.

    8 bits: a float32 scale for each row; native, in every dtype. 4 bits: a bfloat16 scale and offset for each group of a row. On a
    CPU, in bfloat16 and for up to 32 rows of input, as in decoding, torch's packed int4 kernel multiplies them; otherwise a matrix is
    written out before its product, which saves memory but no time (`why_slow`).

    Args:
        model: changed and returned; it can run, generate and be saved, but not train its matrices.
        bits: 8 or 4.
        group_size: for 4 bits, how many weights of a row share a scale: 32, 64, 128 or 256. Where it does not divide a row, the
            next smaller one that does is taken; a matrix whose rows none of them divides stays as it is.
        keep: parts that stay as they are, of PARTS; STAYS says why the default ones do. () rounds every matrix.

    Raises ValueError for any other argument, or if the model is quantised already.
    """
    keep = tuple(keep)
    if bits not in (8, 4) or group_size not in GROUPS:
        raise ValueError(f"bits must be 8 or 4 and group_size one of {', '.join(map(str, GROUPS))}: got {bits!r} and {group_size!r}")
    if unknown := set(keep) - set(PARTS):
        raise ValueError(f"keep names parts of {', '.join(PARTS)}: got {', '.join(map(repr, sorted(unknown)))}")
    if quantised := getattr(model, "quantization", None):
        raise ValueError(f"the model is quantised already, to {quantised['bits']} bits: load it again to round it otherwise")
    for path, module in list(model.named_modules()):
        for name, child in list(module.named_children()):
            if type(child) in (Linear, Embedding) and part_of(f"{path}.{name}".strip(".")) not in keep:
                setattr(module, name, _rounded(child, bits, group_size))
    model.quantization = {"bits": bits, "group_size": group_size, "keep": list(keep)}
    return model


def _rounded(matrix: Linear | Embedding, bits: int, group_size: int):
    if bits == 8:
        return Int8Embedding(matrix.weight) if isinstance(matrix, Embedding) else Int8Linear(matrix.weight, matrix.bias)
    group = group_of(matrix.weight.shape[1], group_size)
    if group is None:
        return matrix
    return Int4Embedding(matrix.weight, group) if isinstance(matrix, Embedding) else Int4Linear(matrix.weight, matrix.bias, group)


def part_of(path: str) -> str:
    """The part, of PARTS, that a matrix belongs to."""
    names = path.split(".")
    inside = {"embedding": "embedding", "head": "head", "adapters": "adapters", "link": "links", "shared_blocks": "shared blocks"}
    return next((inside[name] for name in names if name in inside), "mixers" if "mamba" in names else "transformer layers")


def why_slow(model: Zamba) -> str | None:
    """Why a model of 4 bits decodes without the packed kernel, on its device and in its dtype; None if it uses it or is not of 4 bits."""
    if getattr(model, "quantization", {}).get("bits") != 4:
        return None
    weight = model.final_norm.weight
    return why_not_packed(torch.empty(0, dtype=weight.dtype, device=weight.device))


def is_quantised(model: Zamba) -> bool:
    return any(isinstance(m, Quantised) for m in model.modules())
