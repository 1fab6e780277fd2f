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

from zamba_lab import native
from zamba_lab.native import gpu
from zamba_lab.ops.conv import causal_conv, conv_silu
from zamba_lab.ops.scan import scan_recurrence, selective_scan
from zamba_lab.ops.ssd import ssd, ssd_chunked, ssd_recurrence

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="NO GPU: the CUDA kernels were not run")


def mamba_chunk_scan_combined(
    x,
    dt,
    A,
    B,
    C,
    chunk_size,
    D=None,
    z=None,
    dt_bias=None,
    initial_states=None,
    seq_idx=None,
    cu_seqlens=None,
    dt_softplus=False,
    dt_limit=(0.0, float("inf")),
    return_final_states=False,
    return_varlen_states=False,
):
    y, states = ssd_recurrence(x, dt, A, B, C, initial_states)
    return y + D[:, None] * x, states[:, -1]


def selective_scan_fn(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, return_last_state=False):
    groups = B.shape[1]
    assert B.is_contiguous() and A.dtype == torch.float32
    x, dt = (rearrange(part, "b (h p) l -> b l h p", h=groups) for part in (u, delta))
    y, states = scan_recurrence(
        x, dt, rearrange(A.to(u.dtype), "(h p) n -> h p n", h=groups), *(rearrange(part, "b h n l -> b l h n") for part in (B, C))
    )
    return rearrange(y, "b l h p -> b (h p) l") + D[:, None] * u, rearrange(states[:, -1], "b h p n -> b (h p) n")


def causal_conv1d_fn(
    x, weight, bias=None, seq_idx=None, initial_states=None, return_final_states=False, final_states_out=None, activation=None
):
    assert activation == "silu" and x.stride(1) == 1 and initial_states.stride(1) == 1
    assert x.stride(0) % 8 == x.stride(2) % 8 == 0
    y, _ = causal_conv(x.mT, weight, bias, initial_states.mT)
    return F.silu(y).mT


@pytest.fixture
def packages(monkeypatch):
    for module, function in gpu.KERNELS.values():
        monkeypatch.setitem(sys.modules, module.split(".")[0], SimpleNamespace())
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(**{function: globals()[function]}))
    gpu.kernel.cache_clear()
    yield
    gpu.kernel.cache_clear()


def test_the_ssd_kernel_is_called_as_documented(packages):
    x, dt, A, B, C, state = ssd_inputs()
    D = torch.linspace(0, 1, 8).double()
    y, last = gpu.ssd(x, dt, A, B, C, D, state)
    want, want_last = ssd(x, dt, A, B, C, state, D=D)
    torch.testing.assert_close(y, want)
    torch.testing.assert_close(last, want_last)


def test_the_selective_scan_kernel_is_called_as_documented(packages):
    x, dt, A, B, C, _ = (t.float() for t in scan_inputs())
    D = torch.linspace(0, 1, 15).reshape(3, 5)
    y, last = gpu.selective_scan(x, dt, A, B, C, D, None)
    want, states = scan_recurrence(x, dt, A, B, C)
    torch.testing.assert_close(y, want + D * x)
    torch.testing.assert_close(last, states[:, -1])


def test_a_gradient_the_kernel_would_lose_is_refused(packages):
    x, dt, A, B, C, _ = (t.float().requires_grad_() for t in scan_inputs())
    y, last = gpu.selective_scan(x, dt, A, B, C, torch.zeros(3, 5), None)
    y.sum().backward(retain_graph=True)
    with pytest.raises(ValueError, match="no gradient for its last state"):
        last.sum().backward()


@pytest.mark.parametrize("taps", gpu.TAPS)
@pytest.mark.parametrize("l", [1, 2, 9])
def test_the_convolution_kernel_is_called_as_documented(packages, taps, l):
    x, weight, bias, state = torch.randn(2, l, 8), torch.randn(8, taps), torch.randn(8), torch.randn(2, taps - 1, 8)
    for start in (state, None):
        for got, want in zip(gpu.conv_silu(x, weight, bias, start), conv_silu(x, weight, bias, start)):
            torch.testing.assert_close(got, want)


@pytest.mark.parametrize("e, taps, taken", [(56, 4, True), (52, 4, False), (56, 5, False)])
def test_the_convolution_kernel_is_given_the_channels_and_taps_it_is_made_for(packages, e, taps, taken):
    assert gpu.serves("conv_silu", torch.randn(2, 9, e), torch.randn(e, taps), None, None) == taken


def test_other_types_and_scans_from_a_state_are_the_pure_forms(packages):
    *tensors, state = scan_inputs()
    assert not gpu.serves("ssd", tensors[0])
    tensors = [t.float() for t in tensors]
    assert gpu.serves("selective_scan", *tensors, None, None) and not gpu.serves("selective_scan", *tensors, None, state)


def test_without_the_packages_nothing_is_served():
    gpu.kernel.cache_clear()
    assert "mamba_ssm" not in sys.modules
    assert not gpu.serves("ssd", torch.ones(1))


def on_gpu(inputs, dtype: torch.dtype, narrow: tuple[int, ...]) -> list[torch.Tensor]:
    """The inputs on the device with gradients: those at the places `narrow` in dtype, the rest in float32."""
    return [t.to("cuda", dtype if at in narrow else torch.float32).requires_grad_() for at, t in enumerate(inputs)]


def assert_alike(fast, pure, inputs: list[torch.Tensor], dtype: torch.dtype) -> None:
    """Results, and the gradient of their weighed first one to each input, in parts of the largest value."""
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-3
    found, wanted = fast(*inputs), pure(*inputs)
    weights = torch.linspace(-1, 1, wanted[0].numel(), device="cuda").reshape(wanted[0].shape)
    gradients = [torch.autograd.grad((one[0].float() * weights).sum(), inputs) for one in (found, wanted)]
    for got, want in zip((*found, *gradients[0]), (*wanted, *gradients[1])):
        torch.testing.assert_close(got.float(), want.float(), rtol=tolerance, atol=tolerance * want.abs().max().item())


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_the_ssd_agrees_with_the_pure_form(dtype):
    inputs = on_gpu(ssd_inputs(l=300, p=64, n=64), dtype, narrow=(0, 3, 4))
    assert native.find("ssd", *inputs[:5], None, inputs[5]) is gpu.ssd, "mamba_ssm is not installed"
    assert_alike(ssd, ssd_chunked, inputs, dtype)


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_the_selective_scan_agrees_with_the_recurrence(dtype):
    inputs = on_gpu(scan_inputs()[:5], dtype, narrow=(0, 1, 3, 4))
    assert native.find("selective_scan", *inputs, None, None) is gpu.selective_scan, "mamba_ssm is not installed"

    def pure(*args):
        y, states = scan_recurrence(*args)
        return y, states[:, -1]

    assert_alike(selective_scan, pure, inputs, dtype)


@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("taps", gpu.TAPS)
@pytest.mark.parametrize("e", [64, 52])
def test_on_a_gpu_the_convolution_agrees_with_the_pure_form(e, taps, dtype):
    inputs = on_gpu((torch.randn(2, 300, e), torch.randn(e, taps), torch.randn(e)), dtype, narrow=(0, 1, 2))
    assert (native.find("conv_silu", *inputs, None) is gpu.conv_silu) == (e == 64), "causal_conv1d is not installed"

    def pure(*args):
        with native.off():
            return conv_silu(*args, None)

    assert_alike(lambda *args: conv_silu(*args, None), pure, inputs, dtype)
