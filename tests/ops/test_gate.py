"""The gate of a gated MLP against its definition: values and gradients, types, the ends of the range, and torch's contract."""

from functools import partial

import pytest
import torch
from native.test_native import assert_same, assert_same_bits, draw

from zamba_lab import native
from zamba_lab.ops.gate import ACTIVATION, gated

native = pytest.mark.skipif(not native.available(), reason=f"no native kernels: {native.why_not()}")


def defined(both, activation):
    gate, up = both.chunk(2, dim=-1)
    return ACTIVATION[activation](gate) * up


@native
@pytest.mark.parametrize("activation", ACTIVATION)
@pytest.mark.parametrize("shape", [(9, 2), (2, 37, 34), (3, 1, 5, 258), (40, 64)], ids=str)
def test_the_native_gate_equals_the_definition_with_gradients(activation, shape):
    form = partial(native.gated, kind=list(ACTIVATION).index(activation))
    assert_same(lambda x: (form(x),), lambda x: (defined(x, activation),), [3 * draw(*shape)], 1e-12)
    apart = draw(*reversed(shape)).permute(*reversed(range(len(shape))))  # no rows at all: copied
    assert_same(lambda x: (form(x),), lambda x: (defined(x, activation),), [apart], 1e-12)


@native
@pytest.mark.parametrize("activation", ACTIVATION)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
def test_in_other_types_it_is_within_their_rounding(activation, dtype, tolerance):
    """Relative to each number, not to the largest: over the range where an activation is no plain line."""
    gate = torch.cat([torch.linspace(-4.5, 30, 20_001), torch.logspace(-20, 0, 1_000), -torch.logspace(-20, 0, 1_000)]).to(dtype)
    both = torch.stack([gate, torch.full_like(gate, 1.5)], -1).requires_grad_()
    wide = both.detach().double().requires_grad_()
    got, want = gated(both, activation), defined(wide, activation)
    got.sum().backward(), want.sum().backward()
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), want, rtol=20 * tolerance if activation == "gelu_tanh" else 4 * tolerance, atol=1e-30)
    torch.testing.assert_close(both.grad.double(), wide.grad, rtol=0, atol=tolerance * wide.grad.abs().max().item())


@native
def test_the_normal_distribution_keeps_its_digits_far_out():
    """gelu's only inexact part, where torch's own form has lost all digits: 1 + erf is a difference of nearly equal numbers."""
    v = torch.linspace(-13, 13, 200_001)
    exact = v.double() * torch.erfc(-v.double() / 2**0.5) / 2
    got = gated(torch.stack([v, torch.ones_like(v)], -1), "gelu")[:, 0].double()
    assert ((got - exact).abs() / exact.abs().clamp(min=1e-37)).max() < 1e-5
    assert (got - exact).abs().max() < 1e-6


@native
@pytest.mark.parametrize("activation", ACTIVATION)
def test_what_is_no_number_stays_none(activation):
    both = torch.tensor([[torch.nan, 1.0], [1.0, torch.nan], [torch.inf, 1.0], [-200.0, 1.0], [200.0, 1.0]]).repeat(3, 1).requires_grad_()
    y = gated(both, activation)
    y.sum().backward()
    assert y[:2].isnan().all() and y[2, 0] == torch.inf and y[3, 0] == 0 and y[4, 0] == 200
    assert both.grad[:2].isnan().any(1).all() and both.grad[3:5].isfinite().all()


@native
def test_the_same_bits_on_any_number_of_threads(monkeypatch):
    assert_same_bits(monkeypatch, lambda x: (native.gated(x, 0),), [draw(3, 50, 36)])


@native
def test_the_operator_keeps_torch_s_contract_and_compiles():
    both = draw(2, 9, 6).requires_grad_()
    torch.library.opcheck(
        torch.ops.zamba_lab.gated.default, [both, 0], test_utils=("test_schema", "test_autograd_registration", "test_faketensor")
    )
    compiled = torch.compile(partial(gated, activation="silu"), backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(both), gated(both, "silu"))


@pytest.mark.parametrize("activation", ACTIVATION)
def test_where_no_kernel_serves_torch_answers(activation):
    both = draw(2, 20, 34)
    with native.off():
        assert torch.equal(gated(both, activation), defined(both, activation))
    assert torch.equal(gated(both[:0], activation), defined(both[:0], activation))
    assert gated(both.to("meta"), activation).shape == (2, 20, 17)
