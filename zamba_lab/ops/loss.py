"""The loss of language models: -log p of each target, one by one and as the sum that is trained on."""

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100  # the target where nothing is asked
LARGE = 16 << 20  # bytes of logits from which they are worth making a piece at a time
PIECE = 4 << 20  # logits in a piece, about


def token_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """-log p of each target in nats, float32 or wider, 0 where nothing is asked. logits: (..., v). targets and result: (...)."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    nll = F.cross_entropy(wide.flatten(0, -2), targets.to(logits.device).flatten(), ignore_index=IGNORE, reduction="none")
    return nll.view(targets.shape)


def summed_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """-log p of each target, summed, in float32 or wider. logits: (..., v). targets: (...), IGNORE where nothing is asked."""
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(wide.flatten(0, -2), targets.flatten(), ignore_index=IGNORE, reduction="sum")


def in_pieces(x: Tensor, weight: Tensor) -> bool:
    """Whether `loss_in_pieces` is there and worth it: many logits, of full precision, more to a row than x has numbers."""
    if not hasattr(torch.nn, "LinearCrossEntropyOptions") or type(weight) not in (Tensor, torch.nn.Parameter):
        return False
    rows, (vocab, width) = x.numel() // x.shape[-1], weight.shape
    return (
        x.dtype == weight.dtype
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled(x.device.type)
        and rows * vocab * x.element_size() >= LARGE
        and rows >= width
        and vocab > width
    )


def loss_in_pieces(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """`summed_loss` of the logits x W^T, of which only PIECE are there at a time; their gradient is made with them.

    x: (..., d). weight: (v, d). targets: (...). torch's own `linear_cross_entropy`, where this version has its form in chunks.
    """
    options = torch.nn.LinearCrossEntropyOptions(batch_chunk_size=max(1, PIECE // len(weight)), acc_policy="accurate")
    return F.linear_cross_entropy(x.flatten(0, -2), weight, targets.flatten(), reduction="sum", ignore_index=IGNORE, options=options)
