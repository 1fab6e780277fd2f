"""What a part is worth: switch it off by an edit of the trace and compare the next-token loss.

    invocation   what the invocation adds to its mixer's input is 0 (`link_out`)
    LoRA         what the invocation's adapters add is 0 (`lora.*`): the shared weights run bare
    concat       the embedding half of the block's input is 0 (`input`); the block's own norm, which comes next,
                 then rescales what is left

Nothing is retrained: the number says how much this trained model leans on the part, not how well a model without it
could do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from zamba_lab.config import ZambaConfig
from zamba_lab.lens.passes import next_token_loss
from zamba_lab.model import Zamba

PARTS = ("invocation", "LoRA", "concat")


@dataclass(frozen=True)
class Effect:
    """The next-token loss, in nats, with the model whole and with a part switched off. All (b, l - 1)."""

    part: str
    where: int | None         # the invocation, None: every one
    whole: Tensor
    without: Tensor

    @property
    def change(self) -> Tensor:
        """> 0 where the part helped."""
        return self.without - self.whole

    @property
    def name(self) -> str:
        place = "every invocation" if self.where is None else f"invocation {self.where}"
        return f"{place} off" if self.part == "invocation" else f"{self.part} off at {place}"


def parts(config: ZambaConfig) -> tuple[str, ...]:
    """The parts that a model of this config has."""
    has = {"invocation": config.n_invocations > 0, "LoRA": bool(config.lora_rank or config.lora_rank_qkv),
           "concat": config.concat_embedding}
    return tuple(part for part in PARTS if has["invocation"] and has[part])


def switch_edits(config: ZambaConfig, part: str, where: int | None = None) -> dict[str, Callable[[Tensor], Tensor]]:
    """The trace edits that switch a part off: `Trace(edit=switch_edits(model.config, "LoRA", 2))`.

    Args:
        part: one of `parts(config)`.
        where: the invocation, 0 <= where < n_invocations; None: every one.

    Raises ValueError if the model has no such part or invocation.
    """
    if part not in parts(config):
        raise ValueError(f"part must be one that the model has: got {part!r}, the model has "
                         f"{', '.join(parts(config)) or 'none'}")
    if where is not None and not 0 <= where < config.n_invocations:
        raise ValueError(f"where must be an invocation: got {where}, the model has {config.n_invocations}")
    point, edit = {"invocation": ("link_out", torch.zeros_like), "LoRA": ("lora.*", torch.zeros_like),
                   "concat": ("input", without_embedding)}[part]
    return {f"invocation.{'*' if where is None else where}.{point}": edit}


def without_embedding(joined: Tensor) -> Tensor:
    """The block's input [x, x0] with x0 replaced by 0. joined: (b, l, 2d)."""
    stream, embedding = joined.chunk(2, dim=-1)
    return torch.cat([stream, torch.zeros_like(embedding)], dim=-1)


def switch_off(model: Zamba, ids: Tensor, part: str, where: int | None = None, whole: Tensor | None = None) -> Effect:
    """The loss of each token with a part switched off, beside the whole model's.

    Args:
        ids: (b, l), l >= 2.
        part, where: as `switch_edits`.
        whole: the untouched model's `next_token_loss(model, ids)` if it is at hand; computed otherwise.
    """
    edits = switch_edits(model.config, part, where)
    whole = next_token_loss(model, ids) if whole is None else whole
    return Effect(part, where, whole, next_token_loss(model, ids, edit=edits))


def switch_off_each(model: Zamba, ids: Tensor) -> list[Effect]:
    """`switch_off` of every part the model has: at each invocation alone, then at all of them."""
    whole = next_token_loss(model, ids)
    places = [*range(model.config.n_invocations), None]
    return [switch_off(model, ids, part, where, whole) for part in parts(model.config) for where in places]
