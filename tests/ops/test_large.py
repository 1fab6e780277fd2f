"""Large sums, gates and joins: written where earlier results were, sums to the same bits and only where nobody looks."""

import pytest
import torch

from zamba_lab.ops.gate import gated
from zamba_lab.ops.join import concat, plus
from zamba_lab.native import build, memory


def draw(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)


@pytest.fixture(autouse=True)
def all_are_large(monkeypatch):
    for name, value in {"LEAST": 64, "_kept": {}, "_uncut": {}}.items():
        monkeypatch.setattr(memory, name, value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.float16], ids=str)
def test_a_sum_is_torchs(dtype):
    a, b = draw(2, 20, 17, dtype=dtype), draw(3, 20, 17, dtype=dtype)[1:]
    with torch.inference_mode():
        assert torch.equal(plus(a, b), a + b) and bool(memory._kept) == build.available()
        memory._kept.clear()
        assert torch.equal(concat(a, b), torch.cat([a, b], -1)) and bool(memory._kept) == build.available()


def test_a_gate_lies_there():
    with torch.inference_mode():
        gated(draw(2, 20, 34), "gelu")
    assert bool(memory._kept) == build.available()


def test_gradients_other_types_and_shapes_go_the_usual_way():
    a = draw(2, 20, 17).requires_grad_()
    plus(a, a).sum().backward()
    assert (a.grad == 2).all()
    with torch.no_grad():
        assert plus(a, a[:1]).shape == a.shape and plus(a, a.bfloat16()).dtype == torch.float32
        assert concat(a, a.bfloat16()).dtype == torch.float32 and concat(a, a[..., :3]).shape == (2, 20, 20)
        memory._kept.clear()  # of the last
        assert plus(a, a.mT.contiguous().mT).is_contiguous() and plus(a.to("meta"), a.to("meta")).is_meta
    assert not memory._kept
