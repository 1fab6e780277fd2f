"""Who remembers what: hide a needle, wipe one memory just before it is asked for, and see what is lost.

A prompt is filler, a needle (a key and its value), more filler, and the key again; the measure is the loss of the value. The
SSM state, the convolution's window and the keys and values of a layer are wiped, each alone, when the key comes again. That
may help or hurt a prediction whatever the needle was, so the same is done where the needle had another value: only what telling
the value was worth, and is no more, counts as lost.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zamba_lab.cache import Cache
from zamba_lab.config import ZambaConfig
from zamba_lab.lens.effect import bootstrap
from zamba_lab.lens.interventions import intervene
from zamba_lab.lens.logits import divergence
from zamba_lab.lens.memory import wipe
from zamba_lab.lens.parts import attention_depths, mixer_depths
from zamba_lab.lens.passes import tokens_first
from zamba_lab.lens.terms import widened
from zamba_lab.lens.timetravel import transplant
from zamba_lab.model import Zamba
from zamba_lab.ops.loss import token_nll

MEMORIES = ("ssm", "conv", "kv")


@dataclass(frozen=True, eq=False)
class Recall:
    """The loss of the needle's value, in nats. d: distances, part: `parts`, i: layers, b: prompts."""

    parts: tuple[str, ...]
    distances: tuple[int, ...]
    baseline: Tensor  # (d, b) nothing wiped
    never: Tensor  # (d, b) another value in the needle: the model was never told
    wiped: Tensor  # (d, part, i, b); where a layer has no such memory, `baseline`
    never_wiped: Tensor  # (d, part, i, b) another value in the needle, and wiped

    @property
    def recall(self) -> Tensor:
        """What having been told is worth, (d, b), nats."""
        return self.never - self.baseline

    @property
    def loss(self) -> Tensor:
        """How much of that is lost without each memory, (d, part, i, b): what that memory alone was keeping."""
        return self.recall[:, None, None] - (self.never_wiped - self.wiped)

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Bootstrap intervals of the mean loss over prompts: low and high, (d, part, i) each."""
        return bootstrap(self.loss.movedim(-1, 0), level)


def needles(filler: Tensor, distance: int, count: int, lead: int = 32, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Prompts with a needle, and the same prompts with another value in it.

    Args:
        filler: (n,) ids of text, n >= lead + distance; each prompt takes its own stretch of it. Keys and values are drawn from
            its tokens, two different ones a prompt.
        distance: tokens between the needle and the key that asks for it, >= 1.
        lead: tokens before the needle, >= 0.

    Returns: ids (count, lead + 2 + distance + 2), ending in key and value; and the same with another value in the needle.
    Raises ValueError if there is too little filler.
    """
    if distance < 1 or lead < 0 or count < 1:
        raise ValueError(f"distance and count must be 1 or more, lead 0 or more: got {distance}, {count} and {lead}")
    kinds = filler.unique()
    if filler.ndim != 1 or len(filler) < lead + distance or len(kinds) < 3:
        raise ValueError(
            f"filler must be (n,) ids, n >= lead + distance = {lead + distance}, of 3 kinds or more: got shape "
            f"{tuple(filler.shape)}, {len(kinds)} kinds"
        )
    generator = torch.Generator().manual_seed(seed)
    rows, others = [], []
    for _ in range(count):
        start = int(torch.randint(len(filler) - lead - distance + 1, (), generator=generator))
        text = filler[start : start + lead + distance]
        key, value, other = kinds[torch.randperm(len(kinds), generator=generator)[:3].to(kinds.device)].split(1)
        rows.append(torch.cat([text[:lead], key, value, text[lead:], key, value]))
        others.append(torch.cat([text[:lead], key, other, text[lead:], key, value]))
    return torch.stack(rows), torch.stack(others)


@torch.no_grad()
def who_remembers(
    model: Zamba, filler: Tensor, distances: Sequence[int] = (4, 16, 64), count: int = 16, lead: int = 32, seed: int = 0
) -> Recall:
    """Wipe each memory of each layer alone before the needle is asked for, at each distance.

    Arguments as `needles`; the same seed at every distance. Two passes a distance read the prompts, and one token for each
    memory asks for the needle.
    """
    if not distances:
        raise ValueError("distances must name one distance or more: got none")
    losses = []
    for distance in distances:
        told, never = (_recalled(model, ids) for ids in needles(filler, distance, count, lead, seed))
        losses.append((told[0], never[0], told[1], never[1]))
    return Recall(MEMORIES, tuple(distances), *(torch.stack(part) for part in zip(*losses)))


def _recalled(model: Zamba, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of the last token, (b,), and with each memory wiped before the token that asks for it, (part, i, b)."""
    asked = ids.shape[1] - 2
    _, cache = model.extend(ids[:, :asked], last_only=True)

    def loss(changed) -> Tensor:
        return token_nll(changed.extend(ids[:, asked : asked + 1], cache)[0][:, 0], ids[:, -1])

    baseline = loss(intervene(model))
    return baseline, by_memory(model.config, lambda part, k, depth: loss(intervene(model, wipe(part, k, asked))), baseline)


def by_memory(config: ZambaConfig, measure: Callable[[str, int, int], Tensor], absent: Tensor) -> Tensor:
    """(part, i, ...): measure(part, its number, depth) of each memory, parts as `MEMORIES`; `absent` where a layer has none."""
    mixers, attention = mixer_depths(config), attention_depths(config)
    rows = []
    for part, depths in zip(MEMORIES, (mixers, mixers, attention)):
        numbers = {depth: k for k, depth in enumerate(depths)}
        rows.append(torch.stack([measure(part, numbers[i], i) if i in numbers else absent for i in range(config.n_layers)]))
    return torch.stack(rows)


@torch.no_grad()
def who_carries(model: Zamba, ids: Tensor, donor: Tensor, mask: Tensor | None = None) -> Tensor:
    """How far another text's memory, transplanted alone, moves what the model predicts next.

    Args:
        ids, donor: (b, l) two texts for each row, l >= 2. All but the last token of each is read; then one memory of ids' cache
            is the donor's, and the last token of ids comes.
        mask: (b, l) of both texts, see `passes`.

    Returns: (part, i, b) KL(own || with the transplant) in nats, parts as `MEMORIES`; 0 where a layer has no such memory.
    Raises ValueError if the texts are not of one shape.
    """
    if ids.shape != donor.shape or ids.ndim != 2 or ids.shape[1] < 2:
        raise ValueError(f"two texts of one shape (b, l >= 2) are needed: got {tuple(ids.shape)} and {tuple(donor.shape)}")
    if mask is not None:  # all padding to the front, so that each row ends in a token
        order = tokens_first(mask.logical_not())
        ids, donor, mask = (each.gather(1, order) for each in (ids, donor, mask))
    read = None if mask is None else mask[:, :-1]
    own, other = (model.extend(text[:, :-1], mask=read, last_only=True)[1] for text in (ids, donor))

    def prediction(cache: Cache) -> Tensor:
        return widened(model.extend(ids[:, -1:], cache)[0][:, 0]).log_softmax(-1)

    before = prediction(own)
    return by_memory(
        model.config,
        lambda part, k, depth: divergence(before, prediction(transplant(own, other, (part,), (depth,)))),
        torch.zeros_like(before[:, 0]),
    )
