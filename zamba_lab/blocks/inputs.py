"""The tokens, mask and targets of a pass: the rules they keep, and where the real tokens are."""

import torch
from torch import Tensor

from zamba_lab.cache import Cache
from zamba_lab.ops.loss import IGNORE


def values_are_readable(t: Tensor) -> bool:
    """Whether Python may branch on values: not while a program is captured (compile, export, jit.trace) or values are not there."""
    return type(t) is Tensor and not t.is_meta and not torch.compiler.is_compiling() and not torch.jit.is_tracing()


def check_tokens(ids: Tensor, mask: Tensor | None, cache: Cache | None, vocab_size: int) -> Tensor | None:
    """Raise ValueError if ids, mask or cache of a pass break a rule; return the mask as bool, or None if it hides nothing.

    Where values cannot be read the rules about them are the embedding's to enforce, and a mask that is given is used.
    """
    if not isinstance(ids, Tensor):
        raise ValueError(f"ids must be a tensor of token ids (model.tokenizer.encode makes them of text): got {type(ids).__name__}")
    if ids.ndim != 2 or ids.dtype not in (torch.int32, torch.int64) or 0 in ids.shape:
        raise ValueError(
            f"ids must be int64 or int32 of shape (batch, length), both at least 1: got {tuple(ids.shape)}, "
            f"{ids.dtype}" + (" (an empty prompt: begin with the bos token)" if 0 in ids.shape else "")
        )
    if values_are_readable(ids):
        low, high = ids.aminmax()
        try:
            inside = bool((low >= 0) & (high < vocab_size))
        except RuntimeError as error:  # torch's own words name no remedy
            raise ValueError(
                "ids cannot be mapped over by torch.vmap: the model takes a batch, so give all of them as (batch, length)"
            ) from error
        if not inside:
            raise ValueError(f"ids must lie in 0..{vocab_size - 1} (vocab_size {vocab_size}): got {int(low)}..{int(high)}")
    if cache is not None and cache.batch != len(ids):
        raise ValueError(f"ids must have the cache's batch size: got {len(ids)} rows, the cache holds {cache.batch}")
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.shape != ids.shape:
        got = tuple(mask.shape) if isinstance(mask, Tensor) else type(mask).__name__
        raise ValueError(f"mask must have the shape of ids: got {got}, ids {tuple(ids.shape)}")
    if not values_are_readable(mask):
        return mask.bool()
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError(f"mask must hold 1 at tokens and 0 at padding and nothing else: got values {mask.unique()[:5].tolist()}")
    return None if mask.all() else mask.bool()


def check_targets(targets: Tensor | None, ids: Tensor, vocab_size: int) -> Tensor | None:
    """Raise ValueError if the targets of a pass break a rule; return them as int64."""
    if targets is None:
        return None
    if not isinstance(targets, Tensor) or targets.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"targets must be a tensor, int64 or int32: got {getattr(targets, 'dtype', type(targets).__name__)}")
    if targets.shape != ids.shape:
        raise ValueError(f"targets must have the shape of ids, {tuple(ids.shape)}: got {tuple(targets.shape)}")
    if values_are_readable(targets):
        wrong = targets[(targets != IGNORE) & ((targets < 0) | (targets >= vocab_size))]
        if len(wrong):
            raise ValueError(
                f"targets must lie in 0..{vocab_size - 1} (vocab_size {vocab_size}) or be {IGNORE}: got {wrong.unique()[:5].tolist()}"
            )
    return targets.long()


def real_positions(past_mask: Tensor | None, past: int, mask: Tensor | None, l: int, like: Tensor) -> tuple[Tensor | None, Tensor]:
    """Where the real tokens are: the mask over past and new positions, (b, s), and each new token's number among the real ones.

    past_mask: (b, past), mask: (b, l), False at padding, None where there is none. like: (b, l, d). Returns None for the mask if
    there never was padding, and the numbers (b or 1, l), counted from 0.
    """
    if past_mask is None and mask is None:
        return None, torch.arange(past, past + l, device=like.device)[None]
    old = like.new_ones(len(like), past, dtype=torch.bool) if past_mask is None else past_mask
    new = like.new_ones(len(like), l, dtype=torch.bool) if mask is None else mask
    keys = torch.cat([old, new], dim=1)
    return keys, (keys.cumsum(1) - 1).clamp(min=0)[:, past:]


def last_tokens_lie_within(mask: Tensor | None, l: int, n: int) -> bool:
    """Whether l > n, and each row's last real token is one of the last n."""
    return l > n and (mask is None or (values_are_readable(mask) and bool(mask[:, -n:].any(1).all())))


def last_real(x: Tensor, mask: Tensor | None) -> Tensor:
    """Each row's last position that is not padding (the last one in a row of padding only). x: (b, l, d) -> (b, 1, d)"""
    if mask is None:
        return x[:, -1:]
    index = torch.arange(mask.shape[1], device=x.device)
    last = torch.where(mask.any(1), (mask * index).argmax(1), mask.shape[1] - 1)
    return x[torch.arange(len(x), device=x.device), last][:, None]
