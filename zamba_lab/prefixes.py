"""The common beginning of prompts, read once: caches of prefixes, found by their tokens.

Keys and values can be cut back to any position; an SSM state is known only where it was kept. So a cache is kept where two prompts
part: the first prompt leaves its tokens, the second the cache of what both begin with, and the third starts from that.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from zamba_lab.cache import Cache

if TYPE_CHECKING:
    from zamba_lab.model import Zamba

REMEMBERED = 64  # prompts whose tokens are compared with the next one's


class Meter(NamedTuple):
    """tokens: of all prompts so far, in every row. computed: those that went through the model, in this store or as the rest that
    `split` returned. saved: the difference. states, nbytes: caches held now, and their bytes; a longer prefix holds the keys and
    values of a shorter one again.
    """

    tokens: int
    computed: int
    saved: int
    states: int
    nbytes: int


class PrefixStore:
    """Caches of prefixes that prompts of one model share.

        store = PrefixStore(model)
        rest, cache = store.split(ids)
        zl.generate(model, rest, 50, cache=cache)           # the same as zl.generate(model, ids, 50), to rounding
        store.meter                                         # what that has saved, and what it holds

    The model must not change while the store is used: call `clear` when it has.

    Args:
        max_bytes: of the caches held, 0 or more; those not used for the longest time are dropped first.
        least: how many tokens a prefix must add to what is stored already, to be kept; 1 or more. ValueError for other values.
    """

    def __init__(self, model: Zamba, max_bytes: int = 2**30, least: int = 16):
        if max_bytes < 0 or least < 1:
            raise ValueError(f"max_bytes must be 0 or more and least 1 or more: got {max_bytes} and {least}")
        self.model, self.max_bytes, self.least = model, max_bytes, least
        self.clear()

    def clear(self) -> None:
        """Forget every state and prompt; the meter starts again."""
        self.states: OrderedDict[bytes, Cache] = OrderedDict()  # by the bytes of their tokens, least used first
        self.prompts: deque[Tensor] = deque(maxlen=REMEMBERED)
        self.tokens = self.computed = 0

    @property
    def meter(self) -> Meter:
        nbytes = sum(cache.nbytes for cache in self.states.values())
        return Meter(self.tokens, self.computed, self.tokens - self.computed, len(self.states), nbytes)

    def split(self, ids: Tensor) -> tuple[Tensor, Cache | None]:
        """The rest of the prompts, which is still to be read, (b, 1 or more), and the cache of what stands before it, or None.

        ids: (b, l) prompts without padding, l >= 1. What all rows begin with is read once for all of them.
        """
        row = ids[0, : _alike(ids)]
        limit = min(len(row), ids.shape[1] - 1)  # one token is left at least: its logits are what follows the prompt
        shared = limit if len(ids) > 1 else min(limit, max((_alike(row, prompt) for prompt in self.prompts), default=0))
        self.prompts.append(row)
        cache = self._longest(row[:limit])
        if shared - (cache.length if cache else 0) >= self.least:
            cache = self.read(row[None, :shared])
        known = cache.length if cache else 0
        self.tokens += ids.numel()
        self.computed += len(ids) * (ids.shape[1] - known)
        rows = cache and (cache if len(ids) == 1 else cache.map(lambda t: t.repeat_interleave(len(ids), dim=0)))
        return ids[:, known:], rows

    @torch.no_grad()
    def read(self, ids: Tensor) -> Cache:
        """Read a prefix, (1, l), from the longest stored one on, and keep its cache. Returns the cache."""
        cache = self._longest(ids[0])
        known = cache.length if cache else 0
        if cache is None or known < ids.shape[1]:
            self.computed += ids.shape[1] - known
            _, cache = self.model.extend(ids[:, known:], cache, last_only=True)
            self.add(cache)
        return cache

    def add(self, cache: Cache) -> None:
        """Keep a cache that was made elsewhere, such as one from a file. Raises ValueError if it is not of one row of known tokens."""
        if cache.tokens is None or cache.batch != 1 or cache.mask is not None or cache.tokens.shape[1] != cache.length:
            raise ValueError(
                "a store keeps caches of one row whose tokens are known, without padding: got "
                f"{cache.batch} rows, tokens {'unknown' if cache.tokens is None else tuple(cache.tokens.shape)}, length {cache.length}"
            )
        self.states[_key(cache.tokens)] = cache.clone()  # without the unused end of a buffer
        while self.states and self.meter.nbytes > self.max_bytes:
            self.states.popitem(last=False)

    def _longest(self, row: Tensor) -> Cache | None:
        """The longest stored beginning of a row of tokens; it counts as used."""
        key = _key(row)
        found = max((known for known in self.states if key.startswith(known)), key=len, default=None)
        if found is None:
            return None
        self.states.move_to_end(found)
        return self.states[found]


def _key(tokens: Tensor) -> bytes:
    return tokens.detach().cpu().long().numpy().tobytes()


def _alike(*rows: Tensor) -> int:
    """How many tokens several rows have in common at their start. rows: (l,) each, or one tensor (b, l)."""
    rows = tuple(rows[0]) if len(rows) == 1 else rows
    length = min(map(len, rows))
    differ = torch.stack([row[:length] != rows[0][:length] for row in rows]).any(0)
    return int(differ.int().argmax()) if differ.any() else length
