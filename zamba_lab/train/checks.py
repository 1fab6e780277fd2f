"""What must hold before the first step, and what is said when a step goes wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import nn

from zamba_lab.corpora import Packed
from zamba_lab.train.batches import IGNORE, by_documents
from zamba_lab.train.config import TrainConfig
from zamba_lab.train.labelled import Labelled
from zamba_lab.train.mixture import Mixture, pieces
from zamba_lab.train.team import ALONE, Alone


def check_run(
    model: nn.Module,
    data: Mixture | Labelled,
    config: TrainConfig,
    held_out: Mapping[str, Packed],
    prompts: Sequence[str] = (),
    team: Alone = ALONE,
) -> None:
    """Raise ValueError on the first rule that the parts of a run break together."""
    data.check(config)
    bos_id = getattr(getattr(model, "config", None), "bos_token_id", None)
    vocab_size = getattr(getattr(model, "config", None), "vocab_size", None)
    tokenizer = getattr(model, "tokenizer", None)
    for name, packed in held_out.items():
        if len(packed.tokens) < 2 or packed.n_bytes < 1:
            raise ValueError(
                f"held-out text must have 2 tokens or more that stand for bytes: {name!r} has "
                f"{len(packed.tokens)} tokens, {packed.n_bytes} bytes"
            )
    if vocab_size is not None:
        for name, tokens in {**data.corpora, **{name: packed.tokens for name, packed in held_out.items()}}.items():
            _check_ids(name, tokens, vocab_size)
        if tokenizer is not None and tokenizer.vocab_size > vocab_size:
            raise ValueError(
                f"the tokenizer must fit the model: it has {tokenizer.vocab_size} tokens, the model's vocab_size is {vocab_size}"
            )
    if config.documents and bos_id is None:
        raise ValueError("documents=True needs a start token: the model's config has bos_token_id=None")
    if config.documents:
        for name, tokens in data.corpora.items():
            if not any((piece == bos_id).any() for piece in pieces(tokens)):
                raise ValueError(
                    f"documents=True needs documents that begin with the start token {bos_id}: {name!r} has none in {len(tokens)} tokens"
                )
    if config.sample_every and (tokenizer is None or not prompts):
        raise ValueError(f"sample_every={config.sample_every} needs a tokenizer and prompts: got {tokenizer}, {len(prompts)} prompts")
    if config.batch % team.size or config.batch // team.size < config.accumulate:
        raise ValueError(
            f"each process takes the same number of windows, at least one a piece: got batch={config.batch}, "
            f"{team.size} processes, accumulate={config.accumulate}"
        )


def _check_ids(name: str, tokens: np.ndarray, vocab_size: int) -> None:
    lows, highs = zip(*((int(piece.min()), int(piece.max())) for piece in pieces(tokens)))
    low, high = min(lows), max(highs)
    if low < 0 or high >= vocab_size:
        raise ValueError(
            f"ids must lie in 0..{vocab_size - 1} (vocab_size {vocab_size}): {name!r} has {low}..{high}. It was "
            "made with a tokenizer that does not fit the model"
        )


@torch.no_grad()
def what_went_wrong(
    module: nn.Module,
    data: Mixture | Labelled,
    step: int,
    config: TrainConfig,
    bos_id: int | None,
    loss: float,
    norm: float,
    team: Alone = ALONE,
    most: int = 5,
) -> str:
    """A sentence on a step whose loss or gradient is no number: its windows, where they are from, and the loss of each."""
    device = next(module.parameters()).device
    ids, targets = data.batch(step, config, team.rank, team.size)
    found = []
    for row in range(len(ids)):
        whole = ids[row : row + 1], targets[row : row + 1]
        # of several processes each must call the module equally often: there a window is read through
        parts = by_documents(*whole, bos_id) if config.documents and team.size == 1 else [whole]
        nats = sum(float(module(given.to(device), targets=aims.to(device))) for given, aims in parts)
        found.append((row, nats / max(1, int((whole[1] != IGNORE).sum()))))
    found.sort(key=lambda one: bool(np.isfinite(one[1])))  # those with no number first
    places = [f"{data.place(row, step, config, bos_id, team.rank, team.size)}: loss {nats:.4g}" for row, nats in found[:most]]
    windows = "; ".join(places) + ("; ..." if len(found) > most else "")
    return (
        f"step {step + 1} has loss {loss} and a gradient of norm {norm} at lr={config.lr_at(step):.3g}: the peak "
        f"lr={config.lr} is too high, or the weights were not finite before. The step was not made; the last checkpoint "
        f"is from before it. Its windows: {windows}"
    )
