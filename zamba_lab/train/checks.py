"""What must hold before the first step, and the report of a step whose loss or gradient is not finite."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from zamba_lab.checkpoints import check_tokenizer
from zamba_lab.corpora import Packed
from zamba_lab.train.batches import IGNORE, split_documents
from zamba_lab.train.config import TrainConfig
from zamba_lab.train.distributed import SINGLE, SingleProcess
from zamba_lab.train.mixture import Labelled, Mixture, chunks


def check_run(
    model: nn.Module,
    data: Mixture | Labelled,
    config: TrainConfig,
    held_out: Mapping[str, Packed],
    prompts: Sequence[str] = (),
    processes: SingleProcess = SINGLE,
) -> None:
    """Raise ValueError on the first rule that the parts of a run break together."""
    data.check(config)
    _check_weights(model)
    for name, packed in held_out.items():
        if not isinstance(packed, Packed) or len(packed.tokens) < 2 or packed.n_bytes < 1:
            got = f"{len(packed.tokens)} tokens, {packed.n_bytes} bytes" if isinstance(packed, Packed) else f"type {type(packed).__name__}"
            raise ValueError(f"held-out text must be Packed, of 2 tokens or more that stand for bytes: {name!r} has {got}")
    _check_tokens(model, data, held_out)
    if config.documents:
        _check_documents(model, data)
    tokenizer = getattr(model, "tokenizer", None)
    if config.sample_every and (tokenizer is None or not prompts):
        raise ValueError(f"sample_every={config.sample_every} needs a tokenizer and prompts: got {tokenizer}, {len(prompts)} prompts")
    if config.batch % processes.size or config.batch // processes.size < config.accumulate:
        raise ValueError(
            f"each process has the same number of windows, at least one a micro-batch: got batch={config.batch}, "
            f"{processes.size} processes, accumulate={config.accumulate}"
        )


def _check_weights(model: nn.Module) -> None:
    """In bfloat16 an update below 1/256 of a weight is rounded away: norms, D and dt_bias would never move."""
    narrow = {
        name: str(value.dtype).removeprefix("torch.")
        for name, value in (*model.named_parameters(), *model.named_buffers())
        if value.dtype not in (torch.float32, torch.float64) and (value.is_floating_point() or value.dtype in (torch.int8, torch.uint8))
    }
    if narrow:
        name, dtype = next(iter(narrow.items()))
        raise ValueError(
            f"weights that are trained must be float32 or float64, or small updates are lost: {name} is {dtype}, and {len(narrow) - 1} "
            "more are not; train model.float(), with precision='bf16' to compute in bfloat16"
        )
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("a model that is trained must have a parameter with requires_grad: got none")


def _check_tokens(model: nn.Module, data: Mixture | Labelled, held_out: Mapping[str, Packed]) -> None:
    """Every id has a row in the embedding, and stands for the text that the weights mean by it."""
    for name, tokenizer in data.tokenizers.items():
        check_tokenizer(model, tokenizer, f"the tokenizer of the corpus {name!r}")
    vocab_size = getattr(getattr(model, "config", None), "vocab_size", None)
    if vocab_size is None:
        return
    for name, tokens in {**data.corpora, **{name: packed.tokens for name, packed in held_out.items()}}.items():
        lows, highs = zip(*((int(chunk.min()), int(chunk.max())) for chunk in chunks(tokens)))
        if min(lows) < 0 or max(highs) >= vocab_size:
            raise ValueError(
                f"ids must lie in 0..{vocab_size - 1} (vocab_size {vocab_size}): {name!r} has {min(lows)}..{max(highs)}. It was "
                "made with a tokenizer that does not fit the model"
            )
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is not None and tokenizer.vocab_size > vocab_size:
        raise ValueError(f"the tokenizer must fit the model: it has {tokenizer.vocab_size} tokens, the model's vocab_size is {vocab_size}")


def _check_documents(model: nn.Module, data: Mixture | Labelled) -> None:
    bos_id = bos_id_of(model)
    if bos_id is None:
        raise ValueError("documents=True needs a start token: the model's config has bos_token_id=None")
    for name, tokens in data.corpora.items():
        if not any((chunk == bos_id).any() for chunk in chunks(tokens)):
            raise ValueError(
                f"documents=True needs documents that begin with the start token {bos_id}: {name!r} has none in {len(tokens)} tokens"
            )


def bos_id_of(model: nn.Module) -> int | None:
    """The id that starts a document, if the model has a config that says so."""
    return getattr(getattr(model, "config", None), "bos_token_id", None)


@torch.no_grad()
def describe_nonfinite(
    module: nn.Module,
    data: Mixture | Labelled,
    step: int,
    config: TrainConfig,
    bos_id: int | None,
    loss: float,
    norm: float,
    processes: SingleProcess = SINGLE,
    limit: int = 5,
) -> str:
    """A sentence on a step whose loss or gradient is not finite: its windows, where they are from, and the loss of each."""
    device = next(module.parameters()).device
    ids, targets = data.batch(step, config, processes.rank, processes.size)
    losses = []
    for row in range(len(ids)):
        window = ids[row : row + 1], targets[row : row + 1]
        # each of several processes must call the module equally often: there a window is read through
        parts = split_documents(*window, bos_id) if config.documents and processes.size == 1 else [window]
        nats = sum(float(module(part.to(device), targets=wanted.to(device))) for part, wanted in parts)
        losses.append((row, nats / max(1, int((window[1] != IGNORE).sum()))))
    losses.sort(key=lambda pair: math.isfinite(pair[1]))  # those that are not first
    windows = [f"{data.source(row, step, config, bos_id, processes.rank, processes.size)}: loss {nats:.4g}" for row, nats in losses[:limit]]
    return (
        f"step {step + 1} has loss {loss} and a gradient of norm {norm} at lr={config.lr_at(step):.3g}: the peak "
        f"lr={config.lr} is too high, or the weights were not finite before. The step was not made; the last checkpoint "
        f"is from before it. Its windows: {'; '.join(windows)}{'; ...' if len(losses) > limit else ''}"
    )
