"""A quantised model on the disk: our names, since no published layout holds one, and a key of config.json that other readers refuse.

Matrices of 4 bits are stored two numbers a byte, row by row, and packed for the processor when they are read.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zamba_lab.checkpoints.errors import CheckpointError
from zamba_lab.checkpoints.files import Weights
from zamba_lab.config import ZambaConfig
from zamba_lab.model import Zamba
from zamba_lab.quantization import quantize
from zamba_lab.quantization.int4 import Int4Matrix, pack

KEY, METHOD = "quantization_config", "zamba_lab"


def split(raw: dict) -> tuple[dict, dict | None]:
    """A config.json without what says how it is quantised, and that. Raises CheckpointError if another library did it."""
    given = raw.get(KEY)
    if given is None:
        return raw, None
    if not isinstance(given, dict) or given.get("quant_method") != METHOD:
        method = given.get("quant_method") if isinstance(given, dict) else given
        raise CheckpointError(
            f"the weights are quantised by {method!r}, which is not read here: take the full ones, and `zl.quantize` them"
        )
    return {key: value for key, value in raw.items() if key != KEY}, {key: value for key, value in given.items() if key != "quant_method"}


def settings(model: Zamba) -> dict:
    """What `split` finds again."""
    return {KEY: {"quant_method": METHOD, **model.quantization}}


def stored_tensors(model: Zamba) -> dict[str, Tensor]:
    """The model's state, with what is packed for this processor in rows instead: "packed" is "q", (out, in / 2) bytes."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    for path, module in int4_matrices(model):
        q = module.q().cpu()
        del tensors[f"{path}.packed"]
        tensors[f"{path}.q"] = q[:, ::2] | q[:, 1::2] << 4
    return tensors


def int4_matrices(model: Zamba) -> list[tuple[str, Int4Matrix]]:
    return [(path, module) for path, module in model.named_modules() if isinstance(module, Int4Matrix)]


def read(config: ZambaConfig, how: dict, weights: Weights, dtype: torch.dtype | None, device: torch.device, check: bool) -> Zamba:
    """The model of a file that `stored_tensors` filled. Raises CheckpointError if names, shapes or numbers do not fit."""
    with torch.device("meta"):
        model = Zamba(config)
    try:
        quantize(model, **how)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"config.json does not say how the weights are quantised: {error}") from error
    wanted = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    for path, module in int4_matrices(model):
        del wanted[f"{path}.packed"]
        wanted[f"{path}.q"] = module.out, module.width // 2
    there = {name: header.shape for name, header in weights.headers.items()}
    if wanted != there:
        shapes = [f"{name} is {there[name]}, not {wanted[name]}" for name in wanted.keys() & there.keys() if there[name] != wanted[name]]
        raise CheckpointError(
            f"the quantised weights do not fit config.json{': ' if shapes else ''}{'; '.join(sorted(shapes)[:5])}",
            missing=wanted.keys() - there.keys(),
            left_over=there.keys() - wanted.keys(),
        )
    if device.type != "meta":
        model.load_state_dict({name: t.to(device) for name, t in _tensors(model, weights, check)}, assign=True)
    return model if dtype is None else model.to(dtype)


def _tensors(model: Zamba, weights: Weights, check: bool):
    for name in weights.headers:
        t = weights.read(name)
        if check and t.is_floating_point() and not t.isfinite().all():
            raise CheckpointError(f"{name} holds NaN or infinite numbers")
        path, _, last = name.rpartition(".")
        if last == "q" and isinstance(model.get_submodule(path), Int4Matrix):
            name, t = f"{path}.packed", pack(torch.stack([t & 15, t >> 4], dim=2).flatten(1))
        yield name, t
