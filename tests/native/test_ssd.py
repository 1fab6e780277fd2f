"""The native SSD scan where decays are at their ends, and on the tiles of a matrix unit."""

import sys

import pytest
import torch
from ops.inputs import ssd_inputs
from native.test_native import defined_ssd, gradients, native_ssd

from zamba_lab import native
from zamba_lab.native import call, unit

scan = sys.modules["zamba_lab.native.ssd"]  # in the package, this name is the operator's
pytestmark = pytest.mark.skipif(not native.available(), reason=f"no native kernels: {native.why_not()}")
needs_tiles = pytest.mark.skipif(native.available() and unit.matrix_unit() < 0, reason="the system refuses the matrix unit")


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


# l, h, p, g, n: of a chunk and one more or less, several strips and rows of tiles, groups
TILED = [(32, 2, 32, 1, 32), (1, 1, 32, 1, 64), (31, 4, 64, 2, 32), (33, 2, 96, 1, 64), (70, 6, 64, 3, 128)]


def tiled_and_not(monkeypatch, *inputs):
    """The scan of bfloat16 x, B and C on a matrix unit (or tiles in plain C), and without one; and how often which was called."""
    called = []
    monkeypatch.setattr(scan, "call", lambda name, *rest: called.append(name) or call.call(name, *rest))
    results = []
    for unit in (1, 0):
        monkeypatch.setattr(scan, "matrix_unit", lambda: unit)
        results.append(scan.forward(*inputs))
    return *results, called


def bfloat16_inputs(l, h, p, g, n, seed=0):
    x, dt, A, B, C, state = ssd_inputs(seed, 2, l, h, p, g, n)
    x, B, C = (t.bfloat16() for t in (x, B, C))
    return x, dt.float(), A.float(), B, C, torch.linspace(-1, 1, h), state.float()


@needs_tiles
@pytest.mark.parametrize("sizes", TILED, ids=str)
@pytest.mark.parametrize("state, D", [(True, True), (False, False)])
def test_on_tiles_it_is_the_same_scan(sizes, state, D, monkeypatch):
    *most, given_D, given_state = bfloat16_inputs(*sizes)
    inputs = (*most, given_D if D else None, given_state if state else None)
    (y, last), (plain_y, plain_last), called = tiled_and_not(monkeypatch, *inputs)
    assert called == ["ssd_forward_tiles", "ssd_forward_bf16"]
    wide = [None if t is None else t.double() for t in inputs]
    exact, exact_last = defined_ssd(*wide[:5], wide[6], wide[5])
    size = lambda t: t.double().square().mean().sqrt()
    assert size(last - exact_last) < 2**-16 * size(exact_last)  # high and low keep 16 bits of 24
    assert size(y - exact) < 1.01 * size(plain_y - exact) + 1e-6 * size(exact)  # y is rounded to 8
    assert y.dtype == torch.bfloat16 and last.dtype == torch.float32


@needs_tiles
def test_tiles_give_the_same_bits_on_any_number_of_threads_and_where_rows_have_gaps(monkeypatch):
    monkeypatch.setattr(scan, "matrix_unit", lambda: 1)
    monkeypatch.setattr(call, "WORTH_A_THREAD", 1)
    x, dt, A, B, C, D, state = bfloat16_inputs(70, 6, 64, 3, 32)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(scan.forward(x, dt, A, B, C, D, state))
    finally:
        torch.set_num_threads(threads)
    joined = torch.cat([x.flatten(2), B.flatten(2), C.flatten(2)], dim=-1)
    parts = joined.split([x[0, 0].numel(), B[0, 0].numel(), C[0, 0].numel()], dim=-1)
    views = [part.unflatten(-1, like.shape[2:]) for part, like in zip(parts, (x, B, C))]
    results.append(scan.forward(views[0], dt, A, *views[1:], D, state))
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@needs_tiles
@pytest.mark.parametrize("where, what", [(0, torch.nan), (0, torch.inf), (3, torch.inf), (4, torch.nan), (6, torch.nan), (1, torch.inf)])
def test_what_is_not_finite_is_left_to_the_other_form(where, what, monkeypatch):
    """On tiles 0 times infinity would show in tokens before it."""
    inputs = [t.clone() for t in bfloat16_inputs(70, 4, 32, 2, 32)]
    inputs[where][0, 40 if inputs[where].shape[1] == 70 else 1] = what
    tiled, plain, called = tiled_and_not(monkeypatch, *inputs)
    assert called == ["ssd_forward_tiles", "ssd_forward_bf16", "ssd_forward_bf16"]
    assert all(torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in zip(tiled, plain))


@needs_tiles
def test_other_sizes_and_types_do_not_go_to_tiles(monkeypatch):
    for sizes in ((40, 2, 16, 1, 32), (40, 2, 32, 1, 16), (40, 2, 48, 1, 32)):
        assert "ssd_forward_tiles" not in tiled_and_not(monkeypatch, *bfloat16_inputs(*sizes))[2]
    x, dt, A, B, C, D, state = bfloat16_inputs(40, 2, 32, 1, 32)
    assert "ssd_forward_tiles" not in tiled_and_not(monkeypatch, x.float(), dt, A, B.float(), C.float(), D, state)[2]
