"""AdamW, with weight decay where it belongs."""

from __future__ import annotations

import torch
from torch import nn

from zamba_lab.train.config import TrainConfig

# Rates, skips and taps of the SSM, vectors or not: pulled to 0 they would mean one fixed memory, not a smaller model.
NEVER_DECAYED = ("A_log", "D", "dt_bias", "conv_weight")


def decayed(model: nn.Module) -> set[str]:
    """The parameters that weight decay pulls to 0: matrices that are neither embeddings nor rates or taps of the SSM.

    Norms and biases are no matrices; a tied head is the embedding.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim >= 2 and id(parameter) not in embeddings and name.split(".")[-1] not in NEVER_DECAYED
    }


def shared(model: nn.Module) -> set[str]:
    """The parameters of the shared blocks and of what their invocations own."""
    return {name for name, _ in model.named_parameters() if name.startswith("shared_blocks.") or ".invocation." in name}


def adamw(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) over groups of parameters: with and without weight decay, shared and not.

    Each group's "share" is its share of the learning rate: `config.shared_lr` or 1.
    """
    decays, shares = decayed(model), shared(model)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        kind = config.weight_decay if name in decays else 0.0, config.shared_lr if name in shares else 1.0
        groups.setdefault(kind, []).append(parameter)
    return torch.optim.AdamW(
        [{"params": held, "weight_decay": decay, "share": share} for (decay, share), held in groups.items()],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        fused=True,
    )
