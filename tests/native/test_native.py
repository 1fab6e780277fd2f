"""The native kernels against the definitions: values and gradients in float64, at awkward sizes, strides and types."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from ops.inputs import scan_inputs, ssd_inputs
from torch.utils.flop_counter import FlopCounterMode
from variants import BASE, make_model

from zamba_lab import native
from zamba_lab.native import call, door
from zamba_lab.ops.conv import causal_conv, conv_silu
from zamba_lab.ops.norm import gated_rms_norm, rms_norm
from zamba_lab.ops.scan import scan_chunked, selective_scan
from zamba_lab.ops.ssd import ssd, ssd_chunked, ssd_recurrence

pytestmark = pytest.mark.skipif(not native.available(), reason=f"no native kernels: {native.why_not()}")


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradients(form, inputs, seed=1):
    """The gradients of all inputs (None stays None) under fixed random weights on all outputs."""
    inputs = [None if t is None else t.detach().requires_grad_() for t in inputs]
    outputs = form(*inputs)
    loss = sum((t * draw(*t.shape, seed=seed + i).to(t.dtype)).sum() for i, t in enumerate(outputs))
    return torch.autograd.grad(loss, [t for t in inputs if t is not None])


def assert_same(native, pure, inputs, tolerance=1e-10):
    """Values and gradients agree, relative to the largest of each tensor."""
    for got, want in zip((*native(*inputs), *gradients(native, inputs)), (*pure(*inputs), *gradients(pure, inputs))):
        largest = want.abs().max().item() if want.numel() else 0
        torch.testing.assert_close(got, want, rtol=0, atol=tolerance * max(1, largest))


def assert_same_bits(monkeypatch, form, inputs):
    """Values and gradients, on 1, 2 and 3 threads, and on 2 again."""
    monkeypatch.setattr(call, "WORTH_A_THREAD", 1)  # or work as small as a test's stays on one
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3, 2):
            torch.set_num_threads(count)
            results.append([*form(*inputs), *gradients(form, inputs)])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


def defined_ssd(x, dt, A, B, C, state, D):
    y, states = ssd_recurrence(x, dt, A, B, C, state)
    return (y if D is None else y + D[:, None] * x), states[:, -1]


def native_ssd(x, dt, A, B, C, state, D):
    return torch.ops.zamba_lab.ssd(x, dt, A, B, C, D, state)


@pytest.mark.parametrize(
    "sizes",
    [
        dict(l=1),
        dict(l=2),
        dict(l=37),
        dict(l=64),
        dict(l=65),
        dict(l=200, p=16, n=16),
        dict(b=3, h=6, g=3, p=33, n=17),
        dict(b=1, h=20, g=1, p=2, n=40),
        dict(h=4, g=4, p=64, n=1),
    ],
    ids=str,
)
@pytest.mark.parametrize("whole", [True, False], ids=["state and D", "neither"])
def test_ssd_equals_the_recurrence_with_gradients(sizes, whole):
    *inputs, state = ssd_inputs(**sizes)
    D = draw(inputs[0].shape[2])
    assert_same(native_ssd, defined_ssd, [*inputs, *((state, D) if whole else (None, None))])


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 2e-6), (torch.bfloat16, 1e-2)])
def test_ssd_in_other_types_equals_float64(dtype, tolerance):
    inputs = ssd_inputs(l=150, p=16, n=16)
    x, dt, A, B, C, state = inputs
    low = [t.to(dtype) for t in (x, B, C)]
    y, last = ssd(low[0], dt.float(), A.float(), low[1], low[2], state.float())
    y64, last64 = ssd_chunked(low[0].double(), dt, A, low[1].double(), low[2].double(), state)
    assert y.dtype == dtype and last.dtype == torch.float32
    torch.testing.assert_close(y.double(), y64, rtol=0, atol=tolerance * y64.abs().max().item())
    torch.testing.assert_close(last.double(), last64, rtol=0, atol=2e-6 * last64.abs().max().item())


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.bfloat16, 1e-2)])
def test_ssd_gradients_in_other_types_equal_float64(dtype, tolerance):
    """dt's and A's come from a running difference: they must hold their digits over many chunks and at strong decays."""
    x, dt, A, B, C, state = ssd_inputs(l=700, p=16, n=16)
    wide = [x.to(dtype).double(), dt, 16 * A, B.to(dtype).double(), C.to(dtype).double(), state, draw(8)]
    low = [t.to(dtype if i in (0, 3, 4) else torch.float32) for i, t in enumerate(wide)]
    for got, want in zip(gradients(native_ssd, low), gradients(native_ssd, wide)):
        torch.testing.assert_close(got.double(), want, rtol=0, atol=tolerance * want.abs().max().item())


def silu_conv(x, weight, bias, state):
    y, last = causal_conv(x, weight, bias, state)
    return F.silu(y), last


@pytest.mark.parametrize(
    "b, l, e, taps", [(2, 37, 5, 4), (1, 1, 3, 4), (3, 2, 17, 4), (2, 64, 16, 1), (1, 65, 300, 3), (2, 200, 33, 7), (1, 130, 257, 16)]
)
@pytest.mark.parametrize("whole", [True, False], ids=["state and bias", "neither"])
def test_conv_equals_the_definition_with_gradients(b, l, e, taps, whole):
    bias, state = (draw(e, seed=2), draw(b, taps - 1, e, seed=3)) if whole else (None, None)
    assert_same(torch.ops.zamba_lab.conv_silu, silu_conv, [draw(b, l, e), draw(e, taps, seed=1), bias, state])


@pytest.mark.parametrize("rows, e, groups", [((2, 37), 12, 3), ((1,), 1, 1), ((5, 3, 2), 64, 2), ((130,), 100, 1)])
@pytest.mark.parametrize("gated", [True, False])
def test_norms_equal_the_definition_with_gradients(rows, e, groups, gated):
    def both(y, z, weight):
        return (rms_norm(y, weight, 1e-5, groups) if z is None else gated_rms_norm(y, z, weight, 1e-5, groups),)

    def pure(*inputs):
        with native.off():
            return both(*inputs)

    assert_same(both, pure, [draw(*rows, e), draw(*rows, e, seed=1) if gated else None, draw(e, seed=2)])


def test_a_norm_rounds_where_the_released_code_does():
    x, weight = draw(50, 64).bfloat16(), draw(64, seed=1).bfloat16()
    with native.off():
        expected = rms_norm(x, weight, 1e-5)
    assert (rms_norm(x, weight, 1e-5) == expected).float().mean() > 0.999  # a sum's last digit may turn a rounding


def test_columns_of_a_wider_tensor_are_read_where_they_lie():
    x, dt, A, B, C, state = ssd_inputs()
    packed = torch.cat([x.flatten(2), B.flatten(2), C.flatten(2)], dim=-1)
    x2, B2, C2 = (
        part.unflatten(-1, t.shape[2:]) for part, t in zip(packed.split([t.shape[2] * t.shape[3] for t in (x, B, C)], dim=-1), (x, B, C))
    )
    assert torch.equal(torch.ops.zamba_lab.ssd(x2, dt, A, B2, C2, None, state)[0], torch.ops.zamba_lab.ssd(x, dt, A, B, C, None, state)[0])
    apart = [t.transpose(-1, -2).contiguous().transpose(-1, -2) for t in (x, B, C)]  # no rows at all: copied
    assert torch.equal(
        torch.ops.zamba_lab.ssd(apart[0], dt, A, apart[1], apart[2], None, state)[0],
        torch.ops.zamba_lab.ssd(x, dt, A, B, C, None, state)[0],
    )


def native_norm(y, z, weight):
    return (torch.ops.zamba_lab.rms_norm(y, z, weight, 1e-5, 2, False),)


@pytest.mark.parametrize(
    "form, inputs",
    [
        (native_ssd, [*ssd_inputs(b=4, l=100), draw(8)]),
        (torch.ops.zamba_lab.conv_silu, [draw(3, 100, 300), draw(300, 4), draw(300), None]),
        (native_norm, [draw(3, 50, 36), draw(3, 50, 36), draw(36)]),
        (native_norm, [draw(3, 50, 36), None, draw(36)]),
    ],
    ids=["ssd", "conv", "gated norm", "norm"],
)
def test_the_same_bits_on_any_number_of_threads(monkeypatch, form, inputs):
    assert_same_bits(monkeypatch, form, inputs)


@pytest.mark.parametrize("worth, wanted", [(1, [1, 2, 3]), (10**12, [1, 1, 1])], ids=["much work", "little work"])
def test_a_kernel_runs_on_torch_s_number_of_threads_if_there_is_work_for_them(monkeypatch, worth, wanted):
    library, given, before = call.build.library(), [], torch.get_num_threads()

    class Watched:
        def __getattr__(self, name):
            return lambda threads, *rest: given.append(threads.value) or getattr(library, name)(threads, *rest)

    monkeypatch.setattr(call, "WORTH_A_THREAD", worth)
    monkeypatch.setattr(call.build, "library", Watched)
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            native_ssd(*ssd_inputs(l=100), None)
    finally:
        torch.set_num_threads(before)
    assert given == wanted


def test_nan_is_not_lost():
    x, dt, A, B, C, state = ssd_inputs()
    x[0, 20, 3, 1] = torch.nan
    y, last = torch.ops.zamba_lab.ssd(x, dt, A, B, C, None, state)
    assert y[0, 20:, 3, 1].isnan().all() and last[0, 3, 1].isnan().all()
    assert y.isnan().sum() == y.shape[1] - 20
    for t in (0, 7, 21, 33):
        B2 = B.clone()
        B2[0, t] = torch.inf
        found = torch.ops.zamba_lab.ssd(torch.ones_like(x), dt, A, B2, C, None, state)[0]
        assert found[:, :t].isfinite().all() and not found[0, t:].isfinite().any() and found[1:].isfinite().all()
    weird = torch.tensor([torch.nan, torch.inf, -torch.inf, 1e30, -1e30, 0.0]).repeat(1, 1, 1)
    y, _ = torch.ops.zamba_lab.conv_silu(weird, torch.ones(6, 1), None, None)
    assert y[0, 0, 0].isnan() and y[0, 0, 1].isinf() and y[0, 0, 3] == 1e30 and (y[0, 0, 4:] == 0).all()


def test_exp_keeps_its_digits():
    """Through SiLU, whose only inexact part is exp: over the floats, and at the ends of the range."""
    v = torch.cat([torch.linspace(-120, 120, 300_001), torch.logspace(-30, 2, 10_000), -torch.logspace(-30, 1.9, 10_000)])
    y, _ = torch.ops.zamba_lab.conv_silu(v.view(1, 1, -1), torch.ones(len(v), 1), None, None)
    exact = v.double() * torch.sigmoid(v.double())
    error = (y.view(-1).double() - exact).abs() / exact.abs().clamp(min=1e-30)
    assert error.max() < 6e-7, f"largest relative error {error.max():.1e} at {v[error.argmax()]}"


@pytest.mark.parametrize(
    "name, inputs",
    [
        ("ssd", [*ssd_inputs(l=5)[:5], draw(8), ssd_inputs()[5]]),
        ("ssd", [*ssd_inputs(l=5)[:5], None, None]),
        ("conv_silu", [draw(2, 5, 3), draw(3, 4), draw(3), draw(2, 3, 3)]),
        ("rms_norm", [draw(2, 5, 6), draw(2, 5, 6), draw(6), 1e-5, 2, False]),
    ],
    ids=["ssd", "ssd bare", "conv_silu", "rms_norm"],
)
def test_the_operators_keep_torch_s_contract(name, inputs):
    inputs = [t.requires_grad_() if isinstance(t, torch.Tensor) else t for t in inputs]
    torch.library.opcheck(
        getattr(torch.ops.zamba_lab, name).default, inputs, test_utils=("test_schema", "test_autograd_registration", "test_faketensor")
    )


def test_flops_are_counted():
    x, dt, A, B, C, state = (t.requires_grad_() for t in ssd_inputs())
    with FlopCounterMode(display=False) as counter:
        ssd(x, dt, A, B, C, state)[0].sum().backward()
    assert counter.get_total_flops() == 4 * (6 * x.numel() * B.shape[-1])


def test_compiled_code_calls_the_operators():
    compiled = torch.compile(partial(ssd, chunk_size=8), backend="aot_eager", fullgraph=True)
    inputs = ssd_inputs()
    for got, want in zip(compiled(*inputs), ssd(*inputs)):
        assert torch.equal(got, want)


@pytest.mark.parametrize(
    "form, pure, given", [(ssd, ssd_chunked, ssd_inputs), (selective_scan, scan_chunked, scan_inputs)], ids=["ssd", "selective scan"]
)
@pytest.mark.parametrize("sizes", [dict(b=0), dict(l=0), dict(p=0)], ids=str)
def test_of_nothing_the_pure_form_makes_nothing(form, pure, given, sizes):
    inputs = given(**sizes)
    got, want = form(*inputs), pure(*inputs)
    assert got[0].shape == inputs[0].shape and torch.equal(got[1], want[1])
    if "l" in sizes:
        assert torch.equal(got[1], inputs[5])  # no token: the state is as it was


@pytest.mark.filterwarnings("always")
def test_float16_is_computed_by_the_pure_forms_and_said_once(recwarn):
    door._warn_once.cache_clear()
    half = [t.half() if i in (0, 3, 4) else t.float() for i, t in enumerate(ssd_inputs())]
    for _ in range(2):
        assert all(torch.equal(a, b) for a, b in zip(ssd(*half), ssd_chunked(*half)))
    x, weight, bias = draw(2, 9, 6).half(), draw(6, 4).half(), draw(6).half()
    torch.testing.assert_close(
        conv_silu(x, weight, bias)[0].double(), conv_silu(x.double(), weight.double(), bias.double())[0], rtol=2e-2, atol=2e-2
    )
    (said,) = [one for one in recwarn if "float16" in str(one.message)]
    assert "pure PyTorch" in str(said.message) and said.category is RuntimeWarning


@pytest.mark.filterwarnings("ignore:float16")
@pytest.mark.parametrize("mixer", ["mamba1", "mamba2"])
def test_a_model_in_float16_answers_as_in_float32(mixer):
    model = make_model(replace(BASE, mixer=mixer)).float()
    ids = torch.arange(23)[None] % BASE.vocab_size
    with torch.inference_mode():
        want, got = model(ids), model.half()(ids)
    # Of all numbers together: the largest error of one is chance, and doubles where torch's attention rounds otherwise, as it does
    # on a processor without AVX2. In bfloat16 it is four times this limit.
    assert (got.float() - want).square().mean().sqrt() < 0.006 * want.abs().max()
