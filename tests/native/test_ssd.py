"""The native SSD scan where decays are at their ends."""

import pytest
import torch
from native.test_native import defined_ssd, gradients, native_ssd
from ops.inputs import ssd_inputs

from zamba_lab import native

pytestmark = pytest.mark.skipif(not native.available(), reason=f"no native kernels: {native.why_not()}")


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("strength", [0.0, 30.0, 500.0, 3000.0])
def test_ssd_at_decays_that_leave_nothing_and_none_at_all(dtype, tolerance, strength):
    """Products of decays pass through what float32 cannot hold, and a step of 0 keeps the state as it was. What is computed grows
    with the step, and A's gradient, a difference of such things, with its square."""
    x, dt, A, B, C, state = ssd_inputs(l=100)
    dt = dt.where(torch.arange(100)[:, None] % 3 > 0, 0) * strength
    wide = [t.to(dtype).double() for t in (x, dt, A, B, C, state)] + [None]
    narrow = [None if t is None else t.to(dtype) for t in wide]
    got, want = (*native_ssd(*narrow), *gradients(native_ssd, narrow)), (*defined_ssd(*wide), *gradients(defined_ssd, wide))
    for g, w in zip(got, want):
        torch.testing.assert_close(g.double(), w, rtol=0, atol=tolerance * max(1, strength**2, w.abs().max().item()))
