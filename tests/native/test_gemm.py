"""The product on a matrix unit against float64 (elsewhere the same tiles in plain C), and when it keeps out of the way."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from zamba_lab import native
from zamba_lab.ops import linear as ops
from zamba_lab.native import gemm as tiles
from zamba_lab.native import unit

pytestmark = pytest.mark.skipif(not native.available() or unit.matrix_unit() < 0, reason="no native kernels, or tiles refused")

product = tiles.gemm

# rows, in, out, rank: of a tile, of a panel, of the columns taken at once, of a piece of rows, and one more or less than them
SIZES = [
    (1, 1, 1, 0),
    (16, 32, 32, 0),
    (17, 33, 31, 1),
    (31, 255, 33, 257),
    (33, 257, 289, 32),
    (64, 513, 40, 0),
    (3, 640, 300, 128),
    (511, 40, 20, 0),
    (513, 34, 37, 5),
    (1025, 20, 34, 0),
]


def given(rows: int, width: int, out: int, rank: int = 0, seed: int = 0) -> list[torch.Tensor]:
    """x, weight, bias and, if there is a rank, down and up, in bfloat16."""
    shapes = [(rows, width), (out, width), (out,)] + [(rank, width), (out, rank)] * (rank > 0)
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).bfloat16() for shape in shapes]


def exact(x, weight, bias=None, down=None, up=None, add=None):
    y = x.double() @ weight.double().T + sum(t.double() for t in (bias, add) if t is not None)
    return y if down is None else y + product(x, down).double() @ up.double().T  # to the bit: where it is rounded is a matter of bits


def assert_rounded_once(got, want):
    """Half a unit in bfloat16's last place, and what float32 loses where a sum cancels."""
    assert got.dtype == torch.bfloat16 and got.shape == want.shape
    torch.testing.assert_close(got.double(), want, rtol=2**-8, atol=1e-6 * want.square().mean().sqrt().item() + 1e-30)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("biased", [False, True])
def test_it_equals_the_product_in_float64(sizes, biased):
    x, weight, bias, *adapter = given(*sizes)
    bias = bias if biased else None
    adapter, add = adapter or (None, None), given(sizes[0], sizes[2], 1, seed=1)[0]
    assert_rounded_once(tiles.gemm(x, weight, bias, *adapter), exact(x, weight, bias, *adapter))
    assert_rounded_once(tiles.gemm(x, weight, bias, *adapter, add), exact(x, weight, bias, *adapter, add))


def test_leading_axes_are_rows_and_nothing_given_is_changed():
    parts = given(60, 40, 50, 3)
    kept = [t.clone() for t in parts]
    x, *others = parts
    y = tiles.gemm(x.view(2, 30, 40), *others)
    assert torch.equal(y.flatten(0, 1), tiles.gemm(*parts)) and all(map(torch.equal, parts, kept))


def test_neither_threads_nor_other_rows_change_a_bit():
    parts, before = given(530, 300, 600, 7), torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(tiles.gemm(*parts))
    finally:
        torch.set_num_threads(before)
    x, *others = parts
    assert all(torch.equal(one, results[0]) for one in results[1:])
    assert torch.equal(tiles.gemm(x[500:510].clone(), *others), results[0][500:510])


def test_what_is_not_a_number_stays_in_its_row_and_column():
    x, weight, bias = given(40, 70, 50)
    want = tiles.gemm(x, weight, bias)
    x[7, 3], weight[11, 69] = torch.nan, torch.inf
    got = tiles.gemm(x, weight, bias)
    assert got[7].isnan().all() and not got[:, 11].isfinite().any()
    got[7], got[:, 11] = want[7], want[:, 11]
    assert torch.equal(got, want)


def test_it_is_taken_for_many_rows_in_inference_and_for_nothing_else(monkeypatch):
    taken = []
    monkeypatch.setattr(tiles, "gemm", lambda *given, **more: taken.append(given) or exact(*given, **more).bfloat16())
    monkeypatch.setattr(tiles, "matrix_unit", lambda: 1)
    rows, out = tiles.LEAST_ROWS, tiles.LEAST_OUT
    x, weight, bias, down, up = given(rows, 8, out, 2)
    add = torch.ones(rows, out).bfloat16()

    def takes(call=ops.linear, *arguments, **more) -> bool:
        taken.clear()
        call(*arguments, **more)
        return bool(taken)

    assert not takes(ops.linear, x, weight, bias)  # gradients are on
    with torch.no_grad():
        assert takes(ops.linear, x, weight, bias) and takes(ops.linear, x.view(2, -1, 8), weight)
        assert takes(ops.linear, x, weight, None, add)
        assert takes(ops.linear_adapted, x, weight, bias, down, up) and len(taken[0]) == 5
        for few in (ops.linear, x[1:], weight), (ops.linear, x, weight[1:]), (ops.linear, x.float(), weight.float()):
            assert not takes(*few)
        with native.off():
            assert not takes(ops.linear, x, weight)
        with FlopCounterMode(display=False) as counter:
            assert not takes(ops.linear_adapted, x, weight, bias, down, up)
        assert counter.get_total_flops() == 2 * rows * (out * (8 + 2) + 8 * 2)
        for refused in (0, -1):
            monkeypatch.setattr(tiles, "matrix_unit", lambda: refused)
            assert not takes(ops.linear, x, weight, bias)


@torch.no_grad()
def test_an_adapter_is_added_to_the_rounded_product_where_there_is_no_unit(monkeypatch):
    x, weight, bias, down, up = given(20, 30, 40, 3)
    monkeypatch.setattr(tiles, "matrix_unit", lambda: 0)
    want = torch.nn.functional.linear(x, weight, bias) + (x @ down.T) @ up.T
    assert torch.equal(ops.linear_adapted(x, weight, bias, down, up), want)


def test_a_profile_shows_it():
    parts = given(20, 30, 40)
    with profile(activities=[ProfilerActivity.CPU]) as found:
        tiles.gemm(*parts)
    assert "zamba_lab::gemm" in {event.key for event in found.key_averages()}


def test_a_unit_that_is_refused_is_an_error_and_no_crash(monkeypatch):
    monkeypatch.setattr(unit, "matrix_unit", lambda: -1)
    with pytest.raises(RuntimeError, match="matrix unit"):
        tiles.gemm(*given(2, 3, 4))
