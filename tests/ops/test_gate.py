"""The gate of a gated MLP."""

import pytest
import torch

from zamba_lab.ops.gate import ACTIVATION, gated


@pytest.mark.parametrize("activation", ACTIVATION)
@pytest.mark.parametrize("shape", [(9, 2), (2, 37, 34), (3, 1, 5, 258), (0, 4)], ids=str)
def test_the_first_half_gates_the_second(activation, shape):
    both = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gate, up = both.chunk(2, dim=-1)
    assert torch.equal(gated(both, activation), ACTIVATION[activation](gate) * up)
    assert gated(both.to("meta"), activation).shape == gate.shape


def test_gelu_is_the_exact_form():
    v = torch.linspace(-5, 5, 1001, dtype=torch.float64)
    exact = v * torch.erfc(-v / 2**0.5) / 2
    torch.testing.assert_close(gated(torch.stack([v, torch.ones_like(v)], -1), "gelu")[:, 0], exact, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("width", [1, 7])
def test_an_odd_width_is_refused(width):
    with pytest.raises((RuntimeError, ValueError)):
        gated(torch.ones(2, width), "silu")
