"""The native kernels against the definitions: values, gradients, odd strides and sizes, and what happens without them."""

import os
import shutil
import subprocess
import sys
from functools import partial

import pytest
import torch
from ops.inputs import ssd_inputs

from zamba_lab.ops import kernels, ssd
from zamba_lab.ops.kernels import build

native = pytest.mark.skipif(not kernels.available(), reason=f"no native kernels: {kernels.why_not()}")


def gradients(form, inputs, seed=1):
    """The gradients of all inputs under fixed random weights on all outputs."""
    inputs = [t.detach().requires_grad_() for t in inputs]
    outputs = form(*inputs)
    make = torch.Generator().manual_seed(seed)
    loss = sum((t * torch.randn(t.shape, generator=make, dtype=torch.float64).to(t.dtype)).sum() for t in outputs)
    return torch.autograd.grad(loss, inputs)


def last_state(form, *inputs):
    y, states = form(*inputs)
    return y, states[:, -1]


SSD_SIZES = [dict(l=1), dict(l=2), dict(l=37), dict(l=64), dict(l=65), dict(l=200, p=16, n=16),
             dict(b=3, h=6, g=3, p=33, n=17), dict(b=1, h=20, g=1, p=2, n=40), dict(h=4, g=4, p=64, n=1)]


@native
@pytest.mark.parametrize("sizes", SSD_SIZES, ids=str)
def test_native_ssd_equals_the_recurrence_with_gradients(sizes):
    inputs = ssd_inputs(**sizes)
    for got, want in zip(kernels.ssd(*inputs), last_state(ssd.ssd_recurrence, *inputs)):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-11)
    for got, want in zip(gradients(kernels.ssd, inputs), gradients(partial(last_state, ssd.ssd_recurrence), inputs)):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10 * want.abs().max().item())
