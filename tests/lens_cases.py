"""The models that the laws of the lens are tested on: random ones over the grid of toggles, and the shipped, trained one."""

from functools import cache

import torch
from variants import VARIANTS, make_model, random_ids

import zamba_lab as zl

SSM = [name for name, c in VARIANTS.items() if c.mixer != "attention"]
LISTENING = [name for name in SSM if VARIANTS[name].link_into == "mixer"]  # attention speaks through mixers only
HYBRID = [name for name, c in VARIANTS.items() if c.n_invocations]
CONCAT = [name for name in HYBRID if VARIANTS[name].concat_embedding]
ADAPTED = [name for name in HYBRID if VARIANTS[name].lora_rank or VARIANTS[name].lora_rank_qkv]
TRAINED = "zamba2-nano"
TEXT = "def mean(values):\n    total = 0\n    for value in values:\n        total += value\n    return total / len("


@cache
def case(name: str) -> tuple[zl.Zamba, torch.Tensor]:
    """A float64 model and ids: (2, 11) for a random one, one short program for the trained one. Neither is to be changed."""
    if name == TRAINED:
        model = zl.load(TRAINED, dtype=torch.float64)
        return model, torch.tensor([model.tokenizer.encode(TEXT)[:33]])
    return make_model(VARIANTS[name]), random_ids(VARIANTS[name], b=2, l=11)
