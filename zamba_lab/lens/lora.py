"""An atlas of the adapters: how large a change each makes, in which directions, and what for.

An adapter changes a shared matrix W, (d_out, d_in), to W + up down, of rank r. Nothing here ever forms the product: with
up = Q_u R_u and down^T = Q_d R_d, its singular values are those of the (r, r) matrix R_u R_d^T.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zamba_lab.blocks import SharedBlock
from zamba_lab.config import ZambaConfig
from zamba_lab.lens.effect import Effect, Replacement, real_numbers
from zamba_lab.lens.interventions import intervene
from zamba_lab.lens.mixers import weight_and_bias
from zamba_lab.lens.parts import adapters as lora_parts
from zamba_lab.lens.passes import next_token_loss
from zamba_lab.lens.rewire import permute_adapters
from zamba_lab.model import Zamba
from zamba_lab.quantization.int8 import AnyMatrix


@dataclass(frozen=True)
class LoraChange:
    """The adapters of one part at every invocation. k over invocations, r the rank."""

    part: str
    blocks: tuple[int, ...]  # the shared block of each invocation
    depths: tuple[int, ...]
    spectrum: Tensor  # (k, r): singular values of up down, falling
    norm: Tensor  # (k,): its Frobenius norm over that of the matrix it is added to
    stable_rank: Tensor  # (k,): Frobenius^2 / spectral^2, 1 to r
    reads: Tensor  # (k, k, r): cos^2 of the principal angles between what two adapters read, in d_in
    writes: Tensor  # (k, k, r): the same between what they write, in d_out
    reads_by_chance: float  # r / d_in: the mean cos^2 of random subspaces of that size
    writes_by_chance: float  # r / d_out

    def mean_reads(self) -> dict[str, float]:
        """`reads`, its mean over the angles and over all pairs of one kind. A kind of which there is no pair is left out."""
        alike, owner = self.reads.mean(-1), torch.tensor(self.blocks)
        same, own = owner[:, None] == owner, torch.eye(len(owner), dtype=torch.bool)
        kinds = {"of one block": same & ~own, "of different blocks": ~same}
        return {kind: float(alike[pairs].mean()) for kind, pairs in kinds.items() if pairs.any()}

    def random_reads(self) -> Tensor:
        """`chance_overlaps` for what these adapters read: (draws, r)."""
        rank = self.spectrum.shape[1]
        return chance_overlaps(round(rank / self.reads_by_chance), rank)


@torch.no_grad()
def lora_change(model: Zamba, part: str = "mlp") -> LoraChange:
    """What the adapters of one part are, as matrices.

    Raises ValueError if the config has no such adapters.
    """
    c = model.config
    if part not in lora_parts(c):
        raise ValueError(
            f"part must be one that has adapters: got {part!r}, this config has "
            f"{', '.join(lora_parts(c)) or 'none'} (lora_rank {c.lora_rank}, lora_rank_qkv {c.lora_rank_qkv})"
        )
    spectra, norms, down, up = [], [], [], []
    for depth, block in zip(c.hybrid_layers, c.blocks_by_invocation):
        adapter = model.layers[depth].invocation.adapters[part]
        base, _ = weight_and_bias(base_of(model.shared_blocks[block], part))
        into, out_of = weight_and_bias(adapter.down)[0].mT, weight_and_bias(adapter.up)[0]
        spectra.append(product_spectrum(out_of, into))
        norms.append(torch.linalg.vector_norm(spectra[-1]) / torch.linalg.vector_norm(base))
        down.append(torch.linalg.qr(into)[0])
        up.append(torch.linalg.qr(out_of)[0])
    spectrum = torch.stack(spectra)
    return LoraChange(
        part,
        c.blocks_by_invocation,
        c.hybrid_layers,
        spectrum,
        torch.stack(norms),
        spectrum.square().sum(-1) / spectrum[:, 0].square(),
        overlaps(down),
        overlaps(up),
        down[0].shape[1] / down[0].shape[0],
        up[0].shape[1] / up[0].shape[0],
    )


def base_of(block: SharedBlock, part: str) -> AnyMatrix:
    """The shared linear layer that a part's adapters are added to."""
    return block.mlp.gate_up if part == "mlp" else getattr(block.attention, part)


def product_spectrum(out_of: Tensor, into: Tensor) -> Tensor:
    """The singular values of out_of into^T from its factors, (d_out, r) and (d_in, r), falling: min(r, d_out, d_in) of them."""
    return torch.linalg.svdvals(torch.linalg.qr(out_of)[1] @ torch.linalg.qr(into)[1].mT)


def overlaps(bases: Sequence[Tensor]) -> Tensor:
    """cos^2 of the principal angles between subspaces, falling: (k, k, r) from k orthonormal bases (d, r)."""
    pairs = [[torch.linalg.svdvals(base.mT @ other).square().clamp(max=1) for other in bases] for base in bases]
    return torch.stack([torch.stack(row) for row in pairs])


def chance_overlaps(d: int, rank: int, draws: int = 64, seed: int = 0) -> Tensor:
    """cos^2 of the principal angles between a fixed and a random subspace: what no relation looks like.

    Their mean over the angles is rank / d in expectation. The largest is far above that, so that a pair is to be held
    against the same angle of random pairs and not against the mean.

    Args:
        d: the dimension. rank: of both subspaces, 1 <= rank <= d. draws: how many. seed: of the draws.

    Returns: (draws, rank), each falling. Raises ValueError if rank is above d.
    """
    if not 1 <= rank <= d:
        raise ValueError(f"rank must be in 1..{d} (the dimension d): got {rank}")
    generator = torch.Generator().manual_seed(seed)
    bases = torch.linalg.qr(torch.stack([torch.randn(d, rank, generator=generator) for _ in range(draws)]))[0]
    return torch.linalg.svdvals(bases[:, :rank]).square().clamp(max=1)  # the fixed one: the first axes, which need no product


@dataclass(frozen=True, eq=False)
class LoraEffect(Effect):
    """What the next-token loss, (b, l - 1) in nats, does when invocations get other adapters. No controls."""

    order: tuple[int | None, ...] = ()  # whose adapters each invocation has; None: none that say anything of the text


def lora_effects(
    model: Zamba,
    ids: Tensor,
    how: str = "mean",
    reference: Tensor | None = None,
    mask: Tensor | None = None,
    reference_mask: Tensor | None = None,
) -> list[LoraEffect]:
    """Remove, swap and permute the adapters and see what each does to the loss.

        mean      what one invocation's adapters add is their mean over the reference, then what all add; or "resample", "zero"
        swap      two invocations of one block exchange theirs
        permute   every invocation of each block gets the next one's, the last the first's

    Zero misleads, as the module `replace` explains. Arguments and reference as `switch_off_each`. Raises ValueError if the config has no
    adapters.
    """
    c = model.config
    if not lora_parts(c):
        raise ValueError("these effects need adapters: this config has lora_rank 0 and lora_rank_qkv 0, or no shared block")
    replacement = Replacement(model, ids, how, ("adapter",), reference, mask, reference_mask)
    baseline, effects = next_token_loss(model, ids, mask=mask), []
    for name, order in orders(c, how).items():
        permuted = permute_adapters([i if owner is None else owner for i, owner in enumerate(order)])
        removed = (replacement("adapter", i) for i, owner in enumerate(order) if owner is None)
        changed = next_token_loss(intervene(model, permuted, *removed), ids, mask=mask)
        effects.append(LoraEffect(name, baseline, changed, baseline[None][:0], real_numbers(mask, baseline), order))
    return effects


def orders(config: ZambaConfig, how: str = "mean") -> dict[str, tuple[int | None, ...]]:
    """The exchanges of `lora_effects`, by name: whose adapters each invocation has."""
    k, blocks = config.n_invocations, config.blocks_by_invocation
    own = tuple(range(k))
    every: dict[str, tuple[int | None, ...]] = {f"{how} {i}": (*own[:i], None, *own[i + 1 :]) for i in own}
    every[f"{how} all"] = (None,) * k
    for i in own:
        for j in own[i + 1 :]:
            if blocks[i] == blocks[j]:
                every[f"swap {i} and {j}"] = tuple({i: j, j: i}.get(owner, owner) for owner in own)
    after = {}
    for block in set(blocks):
        invocations = [i for i in own if blocks[i] == block]
        after |= dict(zip(invocations, invocations[1:] + invocations[:1]))
    return every | {"permute": tuple(after[i] for i in own)}
