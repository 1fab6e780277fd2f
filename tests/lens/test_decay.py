"""A half-life is the time in which a state left alone halves."""

import math

import pytest
import torch
from lens_cases import TRAINED, case

from zamba_lab import lens
from zamba_lab.ops.ssd import ssd_step


@pytest.mark.parametrize("name", ["base", "pure mamba2", TRAINED])
def test_a_state_left_alone_halves_in_a_half_life(name):
    model, ids = case(name)
    c, found = model.config, lens.decay(model, ids)
    A = -torch.exp(model.layers[1].mamba.A_log.detach())
    dt, half_life = found.dt[1, :, 3], found.half_life[1, :, 3]  # (b, h)
    state = torch.rand(len(ids), c.ssm_heads, c.headdim, c.d_state, dtype=torch.float64)
    nothing = state.new_zeros(len(ids), 1, c.d_state)
    # one step of half_life times the step size is half_life steps
    _, later = ssd_step(torch.zeros_like(state[..., 0]), dt * half_life, A, nothing, nothing, state)
    torch.testing.assert_close(later, state / 2)


@pytest.mark.parametrize("name", ["base", "mamba1", TRAINED])
def test_step_sizes_and_half_lives_are_geometric_means_over_a_head(name):
    model, ids = case(name)
    found = lens.decay(model, ids)
    dt = lens.run(model, ids, keep=["layers.0.mamba.dt"])["layers.0.mamba.dt"]
    rate = torch.exp(model.layers[0].mamba.A_log.detach())
    if name == "mamba1":
        each = math.log(2) / (dt[..., None] * rate)  # (b, l, h, p, n)
        dt, each = dt.log().mean(-1).exp(), each.log().mean((-1, -2)).exp()
    else:
        each = math.log(2) / (dt * rate)
    assert found.dt.shape == found.half_life.shape == (model.config.n_layers, *ids.shape, model.config.ssm_heads)
    torch.testing.assert_close(found.dt[0], dt)
    torch.testing.assert_close(found.half_life[0], each)
