"""Tensors as text for a page: `unpack` in model.js reads them."""

import base64
import zlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from zamba_lab.config import ZambaConfig
from zamba_lab.lens import parts, run
from zamba_lab.lens.parts import PARTS
from zamba_lab.model import Zamba

DERIVED = (
    *("d_inner", "ssm_heads", "conv_dim", "gated_norm_groups", "conv_state", "dt_width", "n_invocations"),
    *("blocks_by_invocation", "d_attn", "kv_heads", "head_dim", "attn_scale"),
)
SWITCHED = ("invocation", "head", "mixer")  # parts that a page can switch off


def packed(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> tuple[list[tuple[str, list[int]]], str]:
    """Names and shapes of some tensors, and all their numbers as text.

    The first bytes of all numbers stand before the second ones, and so on: the bytes of a kind compress better together.
    """
    numbers = torch.cat([tensor.detach().to(dtype).flatten().cpu() for tensor in tensors.values()])
    planes = numbers.view(torch.uint8).view(-1, dtype.itemsize).T.contiguous()
    text = base64.b64encode(zlib.compress(planes.numpy().tobytes(), 1)).decode()
    return [(name, list(tensor.shape)) for name, tensor in tensors.items()], text


def config_of(config: ZambaConfig) -> dict[str, Any]:
    """The fields of a config, and what follows from them, as model.js reads them."""
    return vars(config) | {name: getattr(config, name) for name in DERIVED}


def means(model: Zamba, reference: Tensor) -> dict[str, Tensor]:
    """What the parts that can be switched off give on average over (b, l) ids, as `lens.mean` takes it: "mean.invocation.2" and so on.

    Of an invocation or a mixer (d,), of the heads of an attention (h, p).
    """
    c = model.config
    points = {f"mean.{part}.{i}": PARTS[part].points(c, i)[0] for part in SWITCHED if part in parts(c) for i in range(PARTS[part].count(c))}
    trace = run(model, reference, keep=list(points.values()))
    return {name: trace[point].mean((0, 1)) for name, point in points.items()}
