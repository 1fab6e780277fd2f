"""The native matrix-vector product against float64, and when it keeps out of the way."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from zamba_lab import native
from zamba_lab.native import door
from zamba_lab.native import gemv as products
from zamba_lab.ops.linear import dequantised, linear, quantised

pytestmark = pytest.mark.skipif(not native.available(), reason=f"no native kernels: {native.why_not()}")

SHAPES = [(1, 1), (3, 31), (7, 33), (65, 100), (584, 128), (130, 1000)]  # (out, in)
LARGE = (1041, 2049)  # more than a cache is taken to hold (CACHED in gemv.c), in bfloat16, too: one row at a time
# of the size of a result: rounding of sums, and of the result itself
TOLERANCE = {torch.float32: 1e-6, torch.bfloat16: 2**-8}


def draw(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_near(got, want, dtype):
    scale = want.square().mean().sqrt() + want.abs()
    assert got.dtype == dtype and got.shape == want.shape
    assert ((got.double() - want).abs() / scale).max() < TOLERANCE[dtype] * (4 if dtype == torch.float32 else 1)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", [*SHAPES, LARGE], ids=str)
@pytest.mark.parametrize("rows", range(1, 9))
def test_it_equals_the_product_in_float64(rows, shape, dtype):
    x, weight, bias = draw(rows, shape[1], dtype=dtype), draw(*shape, dtype=dtype, seed=1), draw(shape[0], dtype=dtype)
    want = F.linear(x.double(), weight.double(), bias.double())
    assert_near(products.linear(x, weight, bias), want, dtype)
    assert_near(products.linear(x, weight), want - bias.double(), dtype)
    values, scale = quantised(weight)
    want = F.linear(x.double(), dequantised(values, scale, torch.float64), bias.double())
    assert_near(products.linear_int8(x, values, scale, bias), want, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("shape", [(301, 512), LARGE], ids=str)
def test_neither_threads_nor_other_rows_change_a_bit(shape, dtype):
    x, weight, before = draw(8, shape[1], dtype=dtype), draw(*shape, dtype=dtype), torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(products.linear(x, weight))
        alone = products.linear(x[3:4], weight)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(results[0], other) for other in results)
    assert torch.equal(alone, results[0][3:4])


def test_infinite_and_nan_weights_stay_where_they_are():
    weight = draw(5, 33)
    weight[2, 0], weight[3, 32] = torch.inf, torch.nan
    y = products.linear(torch.ones(1, 33), weight)[0]
    assert y[2] == torch.inf and y[3].isnan() and y[[0, 1, 4]].isfinite().all()


def test_gradients_modes_strides_and_many_rows_go_to_torch(monkeypatch):
    def never(*arguments):
        raise AssertionError("the native form was called")

    monkeypatch.setitem(door.FORMS, "linear", door.FORMS["linear"]._replace(plain=never))
    x, weight = draw(2, 64), draw(32, 64)
    assert torch.equal(linear(x, weight), F.linear(x, weight))  # gradients are on
    with torch.no_grad():
        for a, w in (
            (x.double(), weight.double()),
            (x[:, ::2], weight[:, :32]),
            (draw(9, 64), weight),
            (x[:0], weight),
            (x.half(), weight.half()),
            (x.to("meta"), weight.to("meta")),
        ):
            assert linear(a, w).shape == (len(a), len(w))
        with FlopCounterMode(display=False) as counter:
            linear(x, weight)
        assert counter.get_total_flops() == 2 * 2 * 64 * 32
        with native.off():
            linear(x, weight)
        with torch.autocast("cpu", torch.bfloat16):
            assert linear(x, weight).dtype == torch.bfloat16
        torch.vmap(linear, (0, None))(x, weight)
        with pytest.raises(AssertionError, match="native"):
            linear(x, weight)
