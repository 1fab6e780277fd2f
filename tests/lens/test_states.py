"""The recomputed SSM states are the model's own."""

from dataclasses import replace

import pytest
import torch

from zamba_lab import lens
from zamba_lab.config import ZambaConfig
from zamba_lab.model import Zamba

MAMBA2 = ZambaConfig(vocab_size=50, d_model=16, n_layers=3, d_state=5, headdim=4, n_groups=2, hybrid_layers=(1,),
                     n_shared_blocks=1, attn_heads=2, d_mlp=24, lora_rank=3)
MAMBA1 = replace(MAMBA2, mixer="mamba1", headdim=16)


def random_model(config: ZambaConfig) -> tuple[Zamba, torch.Tensor]:
    torch.manual_seed(0)
    return Zamba(config).double(), torch.randint(0, config.vocab_size, (2, 11))


@pytest.mark.parametrize("config", [MAMBA1, MAMBA2], ids=["mamba1", "mamba2"])
def test_recomputed_states_equal_those_of_the_pass(config):
    model, ids = random_model(config)
    names = [f"layers.*.mamba.{name}" for name in ("x", "dt", "B", "C", "state")]
    trace = lens.run(model, ids, keep=names)
    for depth in range(config.n_layers):
        torch.testing.assert_close(lens.ssm_states(model, trace, depth), trace[f"layers.{depth}.mamba.state"])


@pytest.mark.parametrize("config", [MAMBA1, MAMBA2], ids=["mamba1", "mamba2"])
def test_the_last_norm_is_that_of_the_cached_state(config):
    model, ids = random_model(config)
    norms = lens.state_norms(model, ids)
    assert norms.shape == (config.n_layers, 2, 11, config.ssm_heads)
    _, cache = model.extend(ids)
    cached = torch.stack([layer.ssm.flatten(-2).norm(dim=-1) for layer in cache.layers])
    torch.testing.assert_close(norms[:, :, -1], cached)


def test_a_model_without_states_is_refused():
    model = Zamba(replace(MAMBA2, mixer="attention", n_shared_blocks=0))
    with pytest.raises(ValueError, match="mixer='attention'"):
        lens.state_norms(model, torch.zeros(1, 3, dtype=torch.long))
