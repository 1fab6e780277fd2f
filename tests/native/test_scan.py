"""The native selective scan against its definition: values, gradients, odd sizes and strides, hard decays, threads."""

import ctypes
from functools import partial

import pytest
import torch
from native.test_native import assert_same_bits, gradients
from ops.inputs import scan_inputs
from torch.utils.flop_counter import FlopCounterMode

from zamba_lab import native
from zamba_lab.native import build
from zamba_lab.ops.scan import scan_chunked, scan_recurrence, selective_scan

pytestmark = pytest.mark.skipif(not native.available(), reason=f"no native kernels: {native.why_not()}")

SIZES = [
    dict(l=1),
    dict(l=2, p=1, n=1),
    dict(l=37, p=33, n=17),
    dict(l=65, p=33, n=16),
    dict(l=200, p=5, n=4),
    dict(b=3, h=1, p=70, n=16),
    dict(b=1, h=2, l=70, p=150, n=3),
    dict(b=1, h=1, l=64, p=300, n=5),
]


def recurrence(*inputs):
    y, states = scan_recurrence(*inputs)
    return y, states[:, -1]


def native_scan(x, dt, A, B, C, state=None, D=None, keep=True):
    return torch.ops.zamba_lab.selective_scan(x, dt, A, B, C, D, state, keep)[:2]


def close(got, want, rtol):
    """Within rtol of the largest number there is."""
    torch.testing.assert_close(got, want, rtol=0, atol=rtol * want.abs().max().item())


def hard_inputs(l=130, p=40, n=16):
    """Decays from 1 to far below the smallest float, steps of 0 among them, in float32."""
    x, _, _, B, C, state = (t.float() for t in scan_inputs(seed=3, b=1, l=l, h=1, p=p, n=n))
    steps = torch.tensor([2.0, 0.0, 1e-6, 0.5, 1e-30, 40.0, 0.01])
    dt = steps[torch.randint(7, (1, l, 1, p), generator=torch.Generator().manual_seed(0))]
    return x, dt, -torch.arange(1, n + 1.0).expand(1, p, n), B, C, state


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_native_scan_equals_the_recurrence_with_gradients(sizes):
    inputs = scan_inputs(**sizes)
    for got, want in zip(native_scan(*inputs), recurrence(*inputs)):
        close(got, want, 1e-14)
    for got, want in zip(gradients(native_scan, inputs), gradients(recurrence, inputs)):
        close(got, want, 1e-13)


def test_the_skip_is_added_and_its_gradient_is_right():
    def skipped(x, dt, A, B, C, state, D):
        y, last = recurrence(x, dt, A, B, C, state)
        return y + D * x, last

    inputs = (*scan_inputs(p=33), torch.linspace(-1, 1, 99, dtype=torch.float64).reshape(3, 33))
    for got, want in zip(native_scan(*inputs), skipped(*inputs)):
        close(got, want, 1e-14)
    for got, want in zip(gradients(native_scan, inputs), gradients(skipped, inputs)):
        close(got, want, 1e-13)


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("output", [0, 1])
def test_without_a_first_state_and_with_one_output_unused(keep, output):
    *inputs, C, _ = scan_inputs(l=70)
    one = lambda form: lambda *inputs: form(*inputs, C)[output : output + 1]
    for got, want in zip(gradients(one(partial(native_scan, keep=keep)), inputs), gradients(one(recurrence), inputs)):
        close(got, want, 1e-13)


def test_views_of_wider_tensors_give_the_same_bits():
    x, dt, A, B, C, state = scan_inputs(b=3, h=2, p=33, n=16)
    wide = torch.cat([torch.ones_like(x), x, dt], dim=2)  # heads of three tensors side by side
    packed = torch.cat([torch.ones(3, 37, 2, 5).double(), B, C], dim=-1)
    views = (wide[:, :, 2:4], wide[:, :, 4:], A, *packed.split((5, 16, 16), dim=-1)[1:], state)
    backwards = tuple(t.mT.contiguous().mT for t in (x, dt, A, B, C, state))
    expected = *native_scan(x, dt, A, B, C, state), *gradients(native_scan, (x, dt, A, B, C, state))
    for inputs in (views, backwards):
        for got, want in zip((*native_scan(*inputs), *gradients(native_scan, inputs)), expected):
            torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_float32_is_as_exact_as_floats_are_where_decays_are_hard():
    inputs = hard_inputs()
    exact = [t.double() for t in inputs]
    for got, want in zip(native_scan(*inputs), recurrence(*exact)):
        close(got.double(), want, 5e-7)
    for got, want in zip(gradients(native_scan, inputs), gradients(recurrence, exact)):
        close(got.double(), want, 2e-6)


def test_steps_of_zero_leave_the_state_as_it_was():
    x, dt, A, B, C, state = (t.float() for t in scan_inputs(l=70, p=33))
    dt[:, 40:] = 0
    _, last = native_scan(x, dt, A, B, C, state)
    _, before = native_scan(x[:, :40], dt[:, :40], A, B[:, :40], C[:, :40], state)
    torch.testing.assert_close(last, before, rtol=0, atol=0)


def test_bfloat16_inputs_are_computed_in_float32():
    x, dt, A, B, C, state = (t.float() for t in scan_inputs(p=40, n=16))
    inputs = x.bfloat16(), dt, A, B.bfloat16(), C.bfloat16(), state
    wide = [t.float() for t in inputs]
    (y, last), (y_ref, last_ref) = native_scan(*inputs), recurrence(*wide)
    assert y.dtype == torch.bfloat16 and last.dtype == torch.float32
    close(y.float(), y_ref, 2**-8)
    close(last, last_ref, 1e-6)
    for got, given, want in zip(gradients(native_scan, inputs), inputs, gradients(recurrence, wide)):
        assert got.dtype == given.dtype
        close(got.float(), want, 2**-7)


@pytest.mark.parametrize("which", [0, 1])
def test_a_nan_stays_in_its_channel_and_in_its_future(which):
    inputs = [t.float() for t in scan_inputs(b=1, h=1, p=20, l=40)]
    inputs[which][0, 20, 0, 3] = torch.nan
    y, last = native_scan(*inputs)
    expected = torch.zeros(40, 20, dtype=bool)
    expected[20:, 3] = True
    assert torch.equal(y[0, :, 0].isnan(), expected)
    assert last[0, 0, 3].isnan().all() and last.isnan().sum() == 4


def test_the_same_bits_on_any_number_of_threads(monkeypatch):
    assert_same_bits(monkeypatch, native_scan, [t.float() for t in scan_inputs(b=1, h=1, p=300, l=70, n=16)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_operator_is_what_torch_expects_of_one(dtype):
    x, dt, A, B, C, state = (t.to(dtype).requires_grad_() for t in scan_inputs(b=1, l=5, h=2, p=3, n=2))
    D = torch.ones(2, 3, dtype=dtype, requires_grad=True)
    for arguments in ((x, dt, A, B, C, D, state, True), (x, dt, A, B, C, None, None, False)):
        torch.library.opcheck(torch.ops.zamba_lab.selective_scan, arguments)


def test_flops_are_counted():
    inputs = [t.requires_grad_() for t in scan_inputs(b=1, l=5, h=2, p=3, n=4)]
    with FlopCounterMode(display=False) as counter:
        native_scan(*inputs)[0].sum().backward()
    assert counter.get_total_flops() == (6 + 18) * 5 * 2 * 3 * 4


def test_the_operation_picks_the_kernel_and_agrees_with_the_pure_form():
    inputs = scan_inputs(l=70)
    with native.off():
        pure = *selective_scan(*inputs), *gradients(selective_scan, inputs)
    for got, want, chunked in zip((*selective_scan(*inputs), *gradients(selective_scan, inputs)), pure, scan_chunked(*inputs)):
        close(got, want, 1e-13)
        assert torch.equal(want, chunked)


def test_the_exponential_over_all_floats_that_matter():
    def exponential(x):
        y = torch.empty_like(x)
        build.library().zamba_exp_f32(ctypes.c_int64(x.numel()), *(ctypes.c_void_p(t.data_ptr()) for t in (x, y)))
        return y

    x = torch.cat([torch.linspace(-87.3, 88.3, 1_000_003), -torch.logspace(-30, 1.9, 100_000)])
    exact = x.double().exp()
    y = exponential(x)
    spacing = 2.0 ** (exact.log2().floor() - 23)
    error = (y.double() - exact).abs() / spacing  # in units in the last place
    assert error.max() < 1.2
    assert (y[x < 0] <= 1).all()
    inf, nan = torch.inf, torch.nan
    edges = exponential(torch.tensor([0.0, -0.0, -1e-45, -inf, inf, nan, -nan, -88.0, -1e30, 1e30, 89.0]))
    assert edges.tolist()[:5] == [1, 1, 1, 0, inf] and edges[5:7].isnan().all() and edges.tolist()[7:] == [0, 0, inf, inf]
