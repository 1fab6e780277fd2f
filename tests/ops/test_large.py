"""Sums and gates of large tensors: written where earlier results were, the same to the last bit, and only where nobody looks."""

import pytest
import torch

from zamba_lab.ops.gate import ACTIVATION, gated
from zamba_lab.ops.join import plus
from zamba_lab.ops.kernels import build, memory


def draw(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)


@pytest.fixture(autouse=True)
def all_are_large(monkeypatch):
    for name, value in {"LEAST": 64, "_kept": {}, "_uncut": {}}.items():
        monkeypatch.setattr(memory, name, value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.float16], ids=str)
@pytest.mark.parametrize("activation", ACTIVATION)
def test_results_are_those_of_torchs_operations(activation, dtype):
    both, a, b = draw(2, 20, 34, dtype=dtype), draw(2, 20, 17, dtype=dtype), draw(3, 20, 17, dtype=dtype)[1:]
    with torch.inference_mode():
        gate, up = both.chunk(2, -1)
        assert torch.equal(gated(both, activation), ACTIVATION[activation](gate) * up)
        assert bool(memory._kept) == build.available()
        memory._kept.clear()
        assert torch.equal(plus(a, b), a + b) and bool(memory._kept) == build.available()
    assert torch.equal(gated(both, activation).to(dtype), ACTIVATION[activation](gate) * up)


def test_gradients_other_types_and_shapes_go_the_usual_way():
    a, both = draw(2, 20, 17).requires_grad_(), draw(2, 20, 34).requires_grad_()
    (plus(a, a).sum() + gated(both, "gelu").sum()).backward()
    assert (a.grad == 2).all() and both.grad.abs().sum() > 0
    with torch.no_grad():
        assert plus(a, a[:1]).shape == a.shape and plus(a, a.bfloat16()).dtype == torch.float32
        assert plus(a, a.mT.contiguous().mT).is_contiguous() and plus(a.to("meta"), a.to("meta")).is_meta
        assert gated(both.mT.contiguous().mT, "silu").shape == (2, 20, 17)
    assert not memory._kept
