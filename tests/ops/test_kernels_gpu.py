"""The CUDA kernels: the same laws where there is a GPU; elsewhere, that they are called as their authors document.

The stand-ins below have the packages' names, argument orders and layouts (mamba_ssm's ssd_combined.py and
selective_scan_interface.py, causal_conv1d's interface) and compute by our definitions.
"""

import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from ops.inputs import scan_inputs, ssd_inputs

from zamba_lab.ops import kernels
from zamba_lab.ops.conv import causal_conv, conv_silu
from zamba_lab.ops.kernels import gpu
from zamba_lab.ops.scan import scan_recurrence
from zamba_lab.ops.ssd import ssd, ssd_chunked, ssd_recurrence

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="NO GPU: the CUDA kernels were not run")


def mamba_chunk_scan_combined(x, dt, A, B, C, chunk_size, D=None, z=None, dt_bias=None, initial_states=None, seq_idx=None,
                              cu_seqlens=None, dt_softplus=False, dt_limit=(0.0, float("inf")), return_final_states=False,
                              return_varlen_states=False):
    y, states = ssd_recurrence(x, dt, A, B, C, initial_states)
    return y + D[:, None] * x, states[:, -1]


def selective_scan_fn(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, return_last_state=False):
    groups = B.shape[1]
    assert B.is_contiguous() and A.dtype == torch.float32
    x, dt = (rearrange(part, "b (h p) l -> b l h p", h=groups) for part in (u, delta))
    y, states = scan_recurrence(x, dt, rearrange(A.to(u.dtype), "(h p) n -> h p n", h=groups),
                                *(rearrange(part, "b h n l -> b l h n") for part in (B, C)))
    return rearrange(y, "b l h p -> b (h p) l") + D[:, None] * u, rearrange(states[:, -1], "b h p n -> b (h p) n")


def causal_conv1d_fn(x, weight, bias=None, seq_idx=None, initial_states=None, return_final_states=False,
                     final_states_out=None, activation=None):
    assert activation == "silu" and x.stride(1) == 1 and initial_states.stride(1) == 1
    y, _ = causal_conv(x.mT, weight, bias, initial_states.mT)
    return F.silu(y).mT


@pytest.fixture
def packages(monkeypatch):
    for name, (module, function) in gpu.KERNELS.items():
        monkeypatch.setitem(sys.modules, module.split(".")[0], SimpleNamespace())
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{function: globals()[function]}))
    gpu.kernel.cache_clear()
    yield
    gpu.kernel.cache_clear()


def test_the_ssd_kernel_is_called_as_documented(packages):
    x, dt, A, B, C, state = ssd_inputs()
    D = torch.linspace(0, 1, 8).double()
    y, last = gpu.ssd(x, dt, A, B, C, D, state, 16)
    want, want_last = ssd(x, dt, A, B, C, state, D=D)
    torch.testing.assert_close(y, want)
    torch.testing.assert_close(last, want_last)


def test_the_selective_scan_kernel_is_called_as_documented(packages):
    x, dt, A, B, C, _ = (t.float() for t in scan_inputs())
    D = torch.linspace(0, 1, 15).reshape(3, 5)
    y, last = gpu.selective_scan(x, dt, A, B, C, D)
    want, states = scan_recurrence(x, dt, A, B, C)
    torch.testing.assert_close(y, want + D * x)
    torch.testing.assert_close(last, states[:, -1])


def test_a_gradient_the_kernel_would_lose_is_refused(packages):
    x, dt, A, B, C, _ = (t.float().requires_grad_() for t in scan_inputs())
    y, last = gpu.selective_scan(x, dt, A, B, C, torch.zeros(3, 5))
    y.sum().backward(retain_graph=True)
    with pytest.raises(ValueError, match="no gradient for its last state"):
        last.sum().backward()


@pytest.mark.parametrize("taps", gpu.TAPS)
@pytest.mark.parametrize("l", [1, 2, 9])
def test_the_convolution_kernel_is_called_as_documented(packages, taps, l):
    x, weight, bias, state = torch.randn(2, l, 5), torch.randn(5, taps), torch.randn(5), torch.randn(2, taps - 1, 5)
    for start in (state, None):
        for got, want in zip(gpu.conv_silu(x, weight, bias, start), conv_silu(x, weight, bias, start)):
            torch.testing.assert_close(got, want)


def test_without_the_packages_nothing_is_served():
    gpu.kernel.cache_clear()
    assert "mamba_ssm" not in sys.modules
    assert not gpu.serves("ssd", torch.ones(1))


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_the_kernels_agree_with_the_pure_forms(dtype):
    x, dt, A, B, C, state = (t.cuda() for t in ssd_inputs(l=300, p=64, n=64))
    x, B, C = (t.to(dtype) for t in (x, B, C))
    args = (x, dt.float(), A.float(), B, C, state.float())
    assert gpu.serves("ssd", x, B, C), "mamba_ssm is not installed"
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-3
    for got, want in zip(ssd(*args), ssd_chunked(*args)):
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance * want.abs().max().item())
    channels, weight = x.flatten(2), torch.randn(512, 4, device="cuda", dtype=dtype)
    got, _ = conv_silu(channels, weight, None)
    with kernels.off():
        torch.testing.assert_close(got, conv_silu(channels, weight, None)[0], rtol=tolerance, atol=tolerance)
