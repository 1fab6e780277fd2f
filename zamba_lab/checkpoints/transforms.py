"""How stored tensors differ from ours where they do: pairs of exact inverses, on rows and axes only.

Each takes and returns lists, since one stored tensor may hold several of ours or the other way round. They work on meta
tensors too, which is how stored shapes are known before anything is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from zamba_lab.checkpoints.errors import CheckpointError
from zamba_lab.config import ZambaConfig

Change = Callable[[list[Tensor], ZambaConfig], list[Tensor]]


@dataclass(frozen=True)
class Transform:
    """to_ours(stored tensors, config) and to_stored(our tensors, config) undo each other."""

    to_ours: Change
    to_stored: Change


def _each(pattern: str, **sizes) -> Change:
    return lambda tensors, config: [rearrange(t, pattern, **sizes) for t in tensors]


def _as_is(tensors: list[Tensor], config: ZambaConfig) -> list[Tensor]:
    return tensors


SAME = Transform(_as_is, _as_is)

# A depthwise convolution's weight carries an axis of one input channel per group.
CONV = Transform(_each("e 1 w -> e w"), _each("e w -> e 1 w"))

# Zamba1's in_proj: rows x_0, z_0, x_1, z_1, ...; ours is all of x, then all of z.
INTERLEAVED = Transform(_each("(e two) ... -> (two e) ...", two=2), _each("(two e) ... -> (e two) ...", two=2))

# Two matrices that are one of ours, one above the other: Zamba1's gate_proj and up_proj.
STACKED = Transform(lambda tensors, config: [torch.cat(tensors)], lambda tensors, config: list(tensors[0].chunk(2)))

# Mamba-1 with a single head and no axis for it.
ONE_HEAD = Transform(_each("... -> 1 ..."), _each("1 ... -> ..."))


# One matrix for q, k and v, head by head: rows q_0, k_0, v_0, q_1, ..., each of head_dim rows.
def _split_qkv(tensors: list[Tensor], config: ZambaConfig) -> list[Tensor]:
    return list(rearrange(tensors[0], "(h three p) d -> three (h p) d", three=3, p=config.head_dim))


def _join_qkv(tensors: list[Tensor], config: ZambaConfig) -> list[Tensor]:
    if config.kv_heads != config.attn_heads:
        raise CheckpointError(
            "a layout that stores q, k and v as one matrix has as many key heads as query heads: got "
            f"{config.kv_heads} and {config.attn_heads}"
        )
    return [rearrange(tensors, "three (h p) d -> (h three p) d", p=config.head_dim)]


QKV_BY_HEAD = Transform(_split_qkv, _join_qkv)
