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
    return {name for name, parameter in model.named_parameters()
            if parameter.ndim >= 2 and id(parameter) not in embeddings and name.split(".")[-1] not in NEVER_DECAYED}


def adamw(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) over two groups of parameters: with and without weight decay."""
    names = decayed(model)
    groups = [
        {"params": [p for name, p in model.named_parameters() if name in names], "weight_decay": config.weight_decay},
        {"params": [p for name, p in model.named_parameters() if name not in names], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.lr, betas=(config.beta1, config.beta2))
