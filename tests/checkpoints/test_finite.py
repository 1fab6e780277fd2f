"""What is not finite is found wherever it stands, and nothing else is."""

import pytest
import torch

from zamba_lab import native
from zamba_lab.checkpoints.load import all_finite

TYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("with_native", [True, False])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("n", [1, 63, 600_001])
def test_one_number_that_is_not_finite_is_found(n, dtype, with_native):
    if with_native:
        run(n, dtype)
    else:
        with native.off():
            run(n, dtype)


def run(n, dtype):
    info = torch.finfo(dtype)
    t = torch.randn(n, generator=torch.Generator().manual_seed(n)).to(dtype)
    t[0], t[n // 2], t[-1] = info.max, -info.max, info.tiny / 4
    assert all_finite(t)
    for value in (float("nan"), float("inf"), -float("inf")):
        for at in (0, n // 3, n - 1):
            spoiled = t.clone()
            spoiled[at] = value
            assert not all_finite(spoiled)


def test_a_negative_nan_is_found():
    assert not all_finite(-torch.full((3,), torch.nan))


def test_gaps_and_nothing_at_all():
    t = torch.zeros(4, 6)
    t[:, 1] = torch.nan
    assert all_finite(t[:, ::2]) and not all_finite(t[:, 1::2])
    assert all_finite(torch.empty(0)) and all_finite(torch.zeros(2, 0, 3))
