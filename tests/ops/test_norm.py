import pytest
import torch

from zamba_lab.ops.norm import gated_rms_norm, rms_norm


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_each_group_is_normalised_by_its_own_mean_square():
    x, weight = draw(2, 3, 12), draw(12, seed=1)
    y = rms_norm(x, weight, 1e-5, groups=3)
    for group in (slice(0, 4), slice(4, 8), slice(8, 12)):
        part = x[..., group]
        rms = (part.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        torch.testing.assert_close(y[..., group], weight[group] * part / rms)


def test_the_gate_comes_before_the_norm():
    y, z, weight = draw(2, 3, 12), draw(2, 3, 12, seed=1), draw(12, seed=2)
    gated = y * z * torch.sigmoid(z)
    torch.testing.assert_close(gated_rms_norm(y, z, weight, 1e-5, groups=2), rms_norm(gated, weight, 1e-5, groups=2))


@pytest.mark.filterwarnings("ignore:float16 on a CPU")
def test_statistics_are_float32_for_half_precision():
    x = torch.full((1, 4096), 300.0, dtype=torch.float16)  # its square overflows float16
    torch.testing.assert_close(rms_norm(x, torch.ones(4096, dtype=torch.float16), 1e-5), torch.ones_like(x))
