"""A task, a base and a study small enough that a cell takes a fraction of a second."""

from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor

from zamba_lab.ablate import Study
from zamba_lab.config import ZambaConfig
from zamba_lab.train import TrainConfig


@dataclass(frozen=True)
class Before:
    """Say the token before the last: a convolution is enough. The interface of zamba_lab.tasks.Task, as far as it is used."""

    name: str = "before"
    length: int = 8
    vocab_size: int = 11
    held_out: bool = False
    chance: float = 1 / 11
    plateau: float | None = None

    def batch(self, seed: int, step: int, n: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed((seed * 1_000_003 + step) * 2 + self.held_out)
        ids = torch.randint(self.vocab_size, (n, self.length), generator=generator)
        return ids, torch.cat([torch.full((n, 1), -100), ids[:, :-1]], dim=1)

    def unseen(self) -> "Before":
        return replace(self, held_out=True)

    def slices(self, ids: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"late": (labels != -100) & (torch.arange(self.length) > 4)}

    def facts(self) -> dict[str, object]:
        return asdict(self)


def broken() -> Before:
    """A task whose sequences have the wrong tokens."""
    return Wrong()


@dataclass(frozen=True)
class Wrong(Before):
    name: str = "wrong"

    def batch(self, seed: int, step: int, n: int) -> tuple[Tensor, Tensor]:
        ids, labels = super().batch(seed, step, n)
        return ids + 100, labels


BASE = ZambaConfig(
    vocab_size=11, d_model=16, n_layers=2, d_state=4, headdim=8, n_shared_blocks=1, hybrid_layers=(1,), attn_heads=2, d_mlp=16, lora_rank=2
)
WIDE = replace(BASE, d_model=32, n_layers=8, headdim=16, n_shared_blocks=2, hybrid_layers=(1, 3, 5, 7), d_mlp=64, lora_rank=4)
TRAIN = TrainConfig(steps=6, batch=4, length=8, lr=1e-2, schedule="constant", evaluate_every=3, checkpoint_every=2)


def study(**changes) -> Study:
    return Study(
        **{"name": "tiny", "base": BASE, "task": Before(), "train": TRAIN, "seeds": (0, 1), "axes": {"conv": [True, False]}, "sample": 16}
        | changes
    )


# a study file of it
FILE = {
    "name": "planted",
    "base": {"d_model": 16, "n_layers": 2, "headdim": 8, "n_shared_blocks": 1, "hybrid_layers": [1], "attn_heads": 2, "d_mlp": 16},
    "task": {"from": "ablate.tiny:Before"},
    "train": {"steps": 6, "batch": 4},
    "seeds": 2,
    "axes": {"rope": [False]},
}
