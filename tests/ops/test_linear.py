"""Many rows: where results are written, and in bfloat16 products in float32, a panel of W at a time, and when they are taken."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from zamba_lab.ops import linear as ops
from zamba_lab.native import build, memory

needs_kernels = pytest.mark.skipif(not build.available(), reason="the native kernels cannot be built here")


def given(*shape: int, out: int = 37, seed: int = 0):
    """x, weight and bias in bfloat16."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(one, generator=generator).bfloat16() for one in (shape, (out, shape[-1]), (out,)))


@pytest.mark.parametrize("shape", [(1, 5), (130, 64), (2, 3, 19), (0, 8)])
@pytest.mark.parametrize("panel", [1, 64, 10_000])
@pytest.mark.parametrize("biased", [True, False])
def test_each_sum_is_rounded_once(shape, panel, biased, monkeypatch):
    monkeypatch.setattr(ops, "PANEL", panel)
    x, weight, bias = given(*shape)
    bias = bias if biased else None
    exact = F.linear(x.double(), weight.double(), bias.double() if biased else None)
    got = ops.in_panels(x, weight, bias)
    assert got.dtype == torch.bfloat16 and got.shape == exact.shape
    # half a unit in bfloat16's last place, and what float32 loses where a sum cancels
    torch.testing.assert_close(got.double(), exact, rtol=2**-8, atol=1e-5 * shape[-1])


def test_x_may_have_gaps_and_nothing_given_is_changed():
    x, weight, bias = given(6, 40)
    kept = [t.clone() for t in (x, weight, bias)]
    gaps = x.T.contiguous().T
    assert not gaps.is_contiguous() and torch.equal(ops.in_panels(gaps, weight, bias), ops.in_panels(x, weight, bias))
    assert all(map(torch.equal, kept, (x, weight, bias)))


@needs_kernels
def test_panels_are_taken_for_many_rows_in_inference_and_for_nothing_else(monkeypatch):
    taken = []
    monkeypatch.setattr(ops, "in_panels", lambda *given: taken.append(given) or F.linear(*given))
    monkeypatch.setattr(ops, "float32_is_faster", lambda: True)
    monkeypatch.setattr(ops, "LARGE", 37 * 64)
    x, weight, bias = given(ops.MANY, 64)

    def takes(*arguments, **more) -> bool:
        taken.clear()
        ops.linear(*arguments, **more)
        return bool(taken)

    assert not takes(x, weight, bias)  # gradients are on
    with torch.no_grad():
        assert takes(x, weight, bias) and takes(x.view(2, -1, 64), weight) and takes(x, weight, add=given(ops.MANY, 37)[0])
        assert not takes(x[1:], weight) and not takes(x.float(), weight.float()) and not takes(x, weight[1:])
        with FlopCounterMode(display=False) as counter:
            assert not takes(x, weight)
        assert counter.get_total_flops() == 2 * ops.MANY * 64 * 37
        monkeypatch.setattr(ops, "float32_is_faster", lambda: False)
        assert not takes(x, weight, bias)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.float16], ids=str)
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("added", [False, True])
@torch.inference_mode()
def test_a_large_result_is_the_same_where_an_earlier_one_was(dtype, biased, added, monkeypatch):
    monkeypatch.setattr(memory, "LEAST", 64)
    monkeypatch.setattr(memory, "_kept", {})
    x, weight, bias = (t.to(dtype) for t in given(2, 20, 33, out=17))
    bias, add = bias if biased else None, x[..., :17].clone() if added else None
    want = F.linear(x, weight, bias)
    want = want + add if added else want
    first = ops.linear(x, weight, bias, add)
    assert torch.equal(first, want) and len(memory._kept) == build.available()
    second = ops.linear(x + 1, weight, bias, add)
    assert second.data_ptr() != first.data_ptr() and torch.equal(first, want)
    place = first.data_ptr()
    del first
    third = ops.linear(x, weight, bias, add)
    assert torch.equal(third, want) and (not build.available() or third.data_ptr() == place)
    assert ops.linear(x[:, :0], weight, bias).shape == (2, 0, 17)


@pytest.mark.parametrize(
    "processor, faster",
    [
        ({}, False),  # a torch that cannot say
        ({"cpu_name": "Intel Xeon", "avx2": True, "avx512_bf16": True, "amx_bf16": True}, False),
        ({"cpu_name": "Intel Xeon", "avx2": True, "avx512_bf16": True, "amx_bf16": False}, True),
        ({"cpu_name": "Intel Core", "avx2": True}, True),
        ({"cpu_name": "AMD EPYC", "avx2": True, "avx512_bf16": True}, False),
        ({"cpu_name": "AMD EPYC", "avx2": True, "avx512_bf16": False}, True),
        ({"cpu_name": "Neoverse", "architecture": "aarch64"}, False),
    ],
)
def test_the_choice_is_the_processors(processor, faster, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor, raising=False)
    assert ops.float32_is_faster.__wrapped__() is faster
