"""Going back and forth in what decoding carries: a cache is a value, so the past is kept by keeping it.

    past = Timeline.start(model, ids)              # snapshots at 0 and at the end
    then = past.extend(more)                       # and one more
    back = then.rewind(ids.shape[1])               # the past again, bitwise
    both = fork(back.cache, 2)                     # two futures, as rows of one batch
    mine = transplant(back.cache, other.cache, parts=("ssm",), depths=(3,))       # the other text's memory in this one

Nothing here changes a cache. `snapshot` is `cache.clone()`, and needed only by who writes into tensors.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zamba_lab.cache import Cache
from zamba_lab.model import Zamba

PARTS = ("conv", "ssm", "kv")
FIELDS = {"conv": ("conv",), "ssm": ("ssm",), "kv": ("k", "v")}


@dataclass(frozen=True, eq=False)
class Timeline:
    """A text and the caches at some of its positions. Each method gives a new one and leaves this one as it is.

    ids: (b, l) read so far. moments: position -> the cache that holds the tokens before it. Their padding is in the caches'.
    """

    model: Zamba
    ids: Tensor
    moments: dict[int, Cache]

    @staticmethod
    def start(model: Zamba, ids: Tensor, mask: Tensor | None = None) -> "Timeline":
        """Read a prompt of (b, l) ids. mask: (b, l), see `passes`."""
        with torch.no_grad():
            _, cache = model.extend(ids, mask=mask, last_only=True)
        return Timeline(model, ids, {ids.shape[1]: cache})

    @property
    def cache(self) -> Cache:
        """The latest."""
        return self.moments[self.ids.shape[1]]

    def extend(self, ids: Tensor, mask: Tensor | None = None) -> tuple[Tensor, "Timeline"]:
        """Read on: the logits of the (b, l) new tokens, and the timeline with the moment after them."""
        with torch.no_grad():
            logits, cache = self.model.extend(ids, self.cache, mask)
        return logits, Timeline(self.model, torch.cat([self.ids, ids], dim=1), {**self.moments, cache.length: cache})

    def rewind(self, position: int) -> "Timeline":
        """The timeline as it was with `position` tokens read, 1 <= position <= tokens read, padding counted.

        A kept moment is the very same values. Otherwise the tokens since the last one before it are read again: a state
        cannot be run backwards.
        """
        if not 1 <= position <= self.ids.shape[1]:
            raise ValueError(f"position must be in 1..{self.ids.shape[1]}, the tokens read: got {position}")
        moments = {at: cache for at, cache in self.moments.items() if at <= position}
        if position not in moments:
            last = max(moments, default=0)
            mask = None if self.cache.mask is None else self.cache.mask[:, last:position]
            with torch.no_grad():
                _, moments[position] = self.model.extend(self.ids[:, last:position], moments.get(last), mask, last_only=True)
        return Timeline(self.model, self.ids[:, :position], moments)

    def with_cache(self, cache: Cache) -> "Timeline":
        """The same text with another memory of it, from here on: the result of `transplant`."""
        return replace(self, moments={**self.moments, self.ids.shape[1]: cache})


def fork(cache: Cache, n: int) -> Cache:
    """Each row n times, side by side: n futures of one past in one batch. Raises ValueError if n < 1."""
    if n < 1:
        raise ValueError(f"a cache forks into 1 or more: got {n}")
    return cache.map(lambda t: t.repeat_interleave(n, dim=0))


def transplant(cache: Cache, donor: Cache, parts: Iterable[str] = PARTS, depths: Iterable[int] | None = None) -> Cache:
    """`cache` with parts of `donor` in it; both stay as they are.

    Args:
        parts: of "conv", "ssm" and "kv".
        depths: which layers; None: all. A part that a depth does not have is not missed, but at least one must be there.

    With every depth's keys and values go the donor's length and padding: the text they stand for. Some of them only fit
    a cache of the same length and padding.

    Raises ValueError, before anything is done, if a name or depth is wrong, if one cache has a part that the other lacks, or
    if sizes or types differ.
    """
    parts, n = tuple(parts), len(cache.layers)
    chosen = tuple(range(n)) if depths is None else tuple(depths)
    if not parts or set(parts) - set(PARTS):
        raise ValueError(f"parts must be of {', '.join(PARTS)}: got {parts}")
    if len(donor.layers) != n or any(not 0 <= i < n for i in chosen):
        raise ValueError(
            f"depths must be in 0..{n - 1} and both caches of one architecture: got depths {chosen}, caches of "
            f"{n} and {len(donor.layers)} layers"
        )
    fields = [field for part in parts for field in FIELDS[part]]
    moved = [(i, field) for i in chosen for field in fields if require_fit(i, field, cache, donor)]
    if not moved:
        raise ValueError(f"there is no {' or '.join(parts)} at depths {chosen} to transplant")
    holders = {i for i in range(n) if donor.layers[i].k is not None}
    every_key = "kv" in parts and holders <= set(chosen)
    if any(field == "k" for _, field in moved) and not every_key:
        require_same_positions(cache, donor)
    layers = list(cache.layers)
    for i, field in moved:
        layers[i] = replace(layers[i], **{field: getattr(donor.layers[i], field)})
    positions = donor if every_key and holders else cache
    return Cache(tuple(layers), positions.length, cache.batch, positions.mask)


def require_fit(depth: int, field: str, cache: Cache, donor: Cache) -> bool:
    """Whether both caches have the part; raises ValueError if only one has, or if it differs in size or type.

    Of keys and values the number of positions may differ: see `require_same_positions`.
    """
    mine, theirs = (getattr(each.layers[depth], field) for each in (cache, donor))
    kinds = [
        None if t is None else (*(size for axis, size in enumerate(t.shape) if field not in "kv" or axis != 2), t.dtype, t.device)
        for t in (mine, theirs)
    ]
    if kinds[0] != kinds[1]:
        words = ["none" if t is None else f"{tuple(t.shape)} {t.dtype} {t.device}" for t in (mine, theirs)]
        raise ValueError(f"layer {depth}'s {field} cannot be transplanted: here {words[0]}, the donor's {words[1]}")
    return mine is not None


def require_same_positions(cache: Cache, donor: Cache) -> None:
    """Raise ValueError unless both caches have the same positions."""
    same = cache.length == donor.length and (
        cache.mask is donor.mask or (cache.mask is not None and donor.mask is not None and torch.equal(cache.mask, donor.mask))
    )
    if not same:
        raise ValueError(
            "keys and values of some layers only can be transplanted between caches of the same positions: got "
            f"{cache.length} here and {donor.length} in the donor" + (", with other padding" if cache.length == donor.length else "")
        )
