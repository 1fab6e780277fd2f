"""A half-life is the time in which a state left alone halves."""

import math
from dataclasses import replace

import pytest
import torch

from zamba_lab import lens
from zamba_lab.config import ZambaConfig
from zamba_lab.model import Zamba
from zamba_lab.ops.ssd import ssd_step

CONFIG = ZambaConfig(vocab_size=50, d_model=16, n_layers=2, d_state=5, headdim=4, hybrid_layers=(), attn_heads=2)


def decayed(config: ZambaConfig) -> tuple[Zamba, torch.Tensor, lens.Decay]:
    torch.manual_seed(0)
    model, ids = Zamba(config).double(), torch.randint(0, config.vocab_size, (2, 7))
    return model, ids, lens.decay(model, ids)


def test_a_state_left_alone_halves_in_a_half_life():
    model, _, found = decayed(CONFIG)
    A = -torch.exp(model.layers[1].mamba.A_log.detach())
    dt, half_life = found.dt[1, :, 3], found.half_life[1, :, 3]                     # (b, h)
    state = torch.rand(2, CONFIG.ssm_heads, 4, 5, dtype=torch.float64)
    nothing = state.new_zeros(2, 1, 5)
    # one step of half_life times the step size is half_life steps
    _, later = ssd_step(state.new_zeros(2, CONFIG.ssm_heads, 4), dt * half_life, A, nothing, nothing, state)
    torch.testing.assert_close(later, state / 2)


@pytest.mark.parametrize("mixer", ["mamba1", "mamba2"])
def test_step_sizes_and_half_lives_are_geometric_means_over_a_head(mixer):
    config = replace(CONFIG, mixer=mixer)
    model, ids, found = decayed(config)
    dt = lens.run(model, ids, keep=["layers.0.mamba.dt"])["layers.0.mamba.dt"]
    rate = torch.exp(model.layers[0].mamba.A_log.detach())
    if mixer == "mamba1":
        each = math.log(2) / (dt[..., None] * rate)                                # (b, l, h, p, n)
        dt, each = dt.log().mean(-1).exp(), each.log().mean((-1, -2)).exp()
    else:
        each = math.log(2) / (dt * rate)
    assert found.dt.shape == found.half_life.shape == (2, 2, 7, config.ssm_heads)
    torch.testing.assert_close(found.dt[0], dt)
    torch.testing.assert_close(found.half_life[0], each)
