"""One step of training: the loss of a batch, its gradient, and AdamW with weight decay where it belongs."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn

from zamba_lab.train.batches import IGNORE, MicroBatch
from zamba_lab.train.config import TrainConfig, kind_of, read_rates
from zamba_lab.train.distributed import SINGLE, SingleProcess

# Rates, skips and taps of the SSM, vectors or not: decayed to 0 they would mean one fixed memory, not a smaller model.
NEVER_DECAYED = ("A_log", "D", "dt_bias", "conv_weight")


def train_step(
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    batches: Sequence[MicroBatch],
    lr: float,
    clip: float,
    autocast: Callable[[], AbstractContextManager] = nullcontext,
    processes: SingleProcess = SINGLE,
) -> tuple[float, float]:
    """One step on micro-batches: loss and gradient are those of the joined batch.

    The weights stay as they are where the gradient is not finite. Returns: the loss before the step in nats a token, and the
    norm of its gradient before clipping. Raises ValueError if no process has a target.
    """
    optimiser.zero_grad(set_to_none=True)
    loss = gradient(module, batches, autocast, processes)
    norm = processes.clip([p for group in optimiser.param_groups for p in group["params"]], clip)
    for group in optimiser.param_groups:
        group["lr"] = lr * group["share"]
    if torch.isfinite(norm):
        optimiser.step()
    return loss.item(), norm.item()


def gradient(
    module: nn.Module,
    batches: Sequence[MicroBatch],
    autocast: Callable[[], AbstractContextManager] = nullcontext,
    processes: SingleProcess = SINGLE,
) -> Tensor:
    """Add the gradient of the mean loss over all targets to the parameters'. Returns that mean. Raises ValueError without targets."""
    device = next(module.parameters()).device
    count = sum(int((targets != IGNORE).sum()) for _, targets in batches)
    # per process, so that the mean over processes is the mean over targets
    count = processes.mean(torch.tensor(count, dtype=torch.float64)).item()
    if count == 0:
        positions = sum(targets.numel() for _, targets in batches)
        raise ValueError(f"a step needs a target: all labels at its {positions} positions are {IGNORE}, which asks for nothing")
    loss = torch.zeros((), dtype=torch.float64)
    for index, (ids, targets) in enumerate(batches):
        with processes.gradient_sync(module, last=index == len(batches) - 1):
            with autocast():
                part = module(ids.to(device), targets=targets.to(device)) / count
            part.backward()
        loss += part.detach().cpu()
    return processes.mean(loss)


def autocast_for(precision: str, device: torch.device) -> Callable[[], AbstractContextManager]:
    """The context of a forward pass: torch's autocast to bfloat16, or none. precision: as `resolve_precision` gives it."""
    return partial(torch.autocast, device.type, torch.bfloat16) if precision == "bf16" else nullcontext


def decayed_parameters(model: nn.Module) -> set[str]:
    """The names of what weight decay pulls to 0: matrices that are neither embeddings nor rates or taps of the SSM.

    Norms and biases are no matrices; a tied head is the embedding.
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    return {
        name
        for name, parameter in model.named_parameters()
        if parameter.ndim >= 2 and id(parameter) not in embeddings and name.split(".")[-1] not in NEVER_DECAYED
    }


def adamw(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter 2019) over groups of parameters: with and without weight decay, shared and not.

    Each group's "share" is its share of the learning rate. `config.rates` decides it, and the decay, for the kinds of matrices that it
    names; else it is `config.shared_lr` for the shared blocks and what their invocations own.
    """
    decayed, rates = decayed_parameters(model), read_rates(config.rates)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        shared = name.startswith("shared_blocks.") or ".invocation." in name
        share, decay = rates.get(kind_of(name), (config.shared_lr if shared else 1.0, config.weight_decay))
        groups.setdefault((decay if name in decayed else 0.0, share), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": parameters, "weight_decay": decay, "share": share} for (decay, share), parameters in groups.items()],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        fused=True,
    )
