"""Small random checkpoints that transformers wrote, and what to compare: shared by the parity tests.

Every parameter is drawn anew, since the reference's own initialisation leaves norms, adapters and D trivial and would
hide wiring mistakes. The reference clamps the step sizes of a prompt but not of decoding, where the authors' code has
no clamp at all: `unclamp` removes it.
"""

from __future__ import annotations

import inspect
import math
import warnings
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from zamba_lab.checkpoints import load
from zamba_lab.model import Zamba

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import transformers
    from transformers import AutoModelForCausalLM, Mamba2Config, MambaConfig, PreTrainedModel, Zamba2Config, ZambaConfig

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

TOLERANCE = 2e-5  # of the largest value compared
# fmt: off
ZAMBA2 = dict(
    vocab_size=67, hidden_size=32, num_hidden_layers=6, hybrid=(1, 3, 4), num_mem_blocks=2, mamba_d_state=8, n_mamba_heads=4,
    num_attention_heads=4, intermediate_size=48, adapter_rank=3, chunk_size=32,
)
# fmt: on
# fmt: off
ZAMBA1 = dict(
    vocab_size=67, hidden_size=32, num_hidden_layers=5, hybrid=(1, 3), mamba_d_state=6, n_mamba_heads=2, num_attention_heads=4,
    num_key_value_heads=4, intermediate_size=48,
)
# fmt: on
# fmt: off
MAMBA2 = dict(
    vocab_size=67, hidden_size=32, num_hidden_layers=4, state_size=8, num_heads=4, head_dim=16, n_groups=1, chunk_size=32, pad_token_id=0,
    tie_word_embeddings=True,
)
# fmt: on
MAMBA1 = dict(vocab_size=67, hidden_size=32, num_hidden_layers=4, state_size=6)
BASES = {"zamba2": ZAMBA2, "zamba": ZAMBA1, "mamba2": MAMBA2, "mamba": MAMBA1}
CONFIGS = {"zamba2": Zamba2Config, "zamba": ZambaConfig, "mamba2": Mamba2Config, "mamba": MambaConfig}


class Pair(NamedTuple):
    """A model of the reference's, and what we read from its checkpoint."""

    theirs: PreTrainedModel
    ours: Zamba


def fresh(model_type: str, **changes) -> PreTrainedModel:
    """A reference model as it initialises itself; `changes` on the base of its type."""
    values = {**BASES[model_type], **changes}
    if "hybrid" in values:
        hybrid = values.pop("hybrid")
        values["layers_block_type"] = ["hybrid" if i in hybrid else "mamba" for i in range(values["num_hidden_layers"])]
    return AutoModelForCausalLM.from_config(CONFIGS[model_type](**values), attn_implementation="eager").eval()


def build(model_type: str, seed: int = 0, **changes) -> PreTrainedModel:
    """A reference model with every parameter random and without the clamp; `changes` on the base of its type."""
    model = fresh(model_type, **changes)
    randomise(model, seed)
    return unclamp(model)


def reopen(folder: Path, **options) -> PreTrainedModel:
    """The reference's own reading of a folder, unchanged."""
    return AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", **options).eval()


def checkpoint(theirs: PreTrainedModel, folder: Path, **options) -> Zamba:
    """The model that we read from what the reference writes."""
    theirs.save_pretrained(folder, **options)
    return load(folder)


@torch.no_grad()
def randomise(model: PreTrainedModel, seed: int) -> None:
    """Draw every parameter once, tied ones together, at scales that keep each part audible."""
    generator = torch.Generator().manual_seed(seed)

    def draw(shape, mean: float, std: float) -> Tensor:
        return mean + std * torch.randn(shape, generator=generator)

    for name, p in model.named_parameters():
        if name.endswith("A_log"):
            p.copy_(torch.rand(p.shape, generator=generator) * math.log(16))  # A in 1..16
        elif name.endswith(("dt_bias", "dt_proj_bias", "dt_proj.bias")):
            p.copy_(draw(p.shape, -2.5, 1.0))  # dt about 0.03..0.3
        elif name.endswith(("norm.weight", "norm_f.weight", ".D")):
            p.copy_(draw(p.shape, 1.0, 0.3))
        elif name.endswith("bias"):
            p.copy_(draw(p.shape, 0.0, 0.3))
        elif "dt_proj" in name:
            p.copy_(draw(p.shape, 0.0, 3 / math.sqrt(p.shape[-1])))
        elif "conv1d" in name or "embed" in name:
            p.copy_(draw(p.shape, 0.0, 0.5))
        else:
            p.copy_(draw(p.shape, 0.0, 0.7 / math.sqrt(p.shape[-1])))


def unclamp(model: PreTrainedModel) -> PreTrainedModel:
    for module in model.modules():
        if hasattr(module, "time_step_limit"):
            module.time_step_limit = (0.0, math.inf)
    return model


def prompt(model: PreTrainedModel, b: int = 2, l: int = 37, seed: int = 1) -> Tensor:
    return torch.randint(0, model.config.vocab_size, (b, l), generator=torch.Generator().manual_seed(seed))


def distance(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, in units of the tolerance."""
    assert ours.shape == theirs.shape, f"shapes differ: ours {tuple(ours.shape)}, theirs {tuple(theirs.shape)}"
    scale = theirs.abs().max().item()
    assert scale > 1e-3, f"nothing to compare: the largest value is {scale}"
    return (ours.double() - theirs.double()).abs().max().item() / (TOLERANCE * scale)


def assert_same(ours: Tensor, theirs: Tensor, what: str) -> None:
    far = distance(ours, theirs)
    assert far <= 1, f"{what}: the largest difference is {far:.3g} tolerances ({TOLERANCE} of the largest value)"


def cached(model: PreTrainedModel, ids: Tensor, past=None) -> tuple[Tensor, object]:
    """The reference's logits of new tokens and the cache after them. transformers 5.24 calls `cache` what 5.23 calls `past_key_values`."""
    new_name = "cache" in inspect.signature(model.forward).parameters
    output = model(ids, use_cache=True, **{"cache" if new_name else "past_key_values": past})
    return output.logits, output.past_key_values if output.get("past_key_values") is not None else output.cache
