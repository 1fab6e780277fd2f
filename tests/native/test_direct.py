"""What the forms for few rows do not take as it is goes to torch's own, which broadcasts it or says what is wrong; operators are
passed by only where nobody sees it."""

import pytest
import torch

from zamba_lab import Zamba, ZambaConfig
from zamba_lab import native
from zamba_lab.ops.gate import gated
from zamba_lab.native import direct
from zamba_lab.ops.linear import linear, linear_int8, quantised
from zamba_lab.ops.norm import gated_rms_norm, rms_norm

pytestmark = pytest.mark.skipif(not native.available(), reason=f"no native kernels: {native.why_not()}")


def draw(*shape, dtype=torch.float32, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def int8(x, weight, *more):
    return linear_int8(x, *quantised(weight), *more)


X, W, B = draw(2, 1, 12), draw(5, 12, seed=1), draw(5, seed=2)
REFUSED = {
    "linear, a wider weight": (linear, X, draw(5, 16)),
    "linear, a narrower weight": (linear, X, draw(5, 8)),
    "linear, a longer bias": (linear, X, W, draw(7)),
    "linear, a bias of another type": (linear, X, W, B.double()),
    "linear, more to add": (linear, X, W, B, draw(2, 3, 7)),
    "int8, a wider weight": (int8, X, draw(5, 16)),
    "int8, a longer bias": (int8, X, W, draw(7)),
    "norm, a shorter weight": (rms_norm, X, draw(6), 1e-5),
    "norm, a longer weight": (rms_norm, X, draw(24), 1e-5),
    "gated norm, a longer weight": (gated_rms_norm, X, X, draw(24), 1e-5, 2),
    "gated norm, another gate": (gated_rms_norm, X, draw(2, 3, 6), draw(12), 1e-5, 2),
    "gate, an odd width": (gated, draw(2, 1, 7), "gelu"),
}
BROADCAST = {
    "linear, one row to add": (linear, X, W, B, draw(1, 5)),
    "linear, rows to add to": (linear, X, W, None, draw(2, 3, 5)),
    "linear, one output for all": (linear, X, W, None, draw(2, 1, 1)),
    "linear, a vector": (linear, X, draw(12)),
    "int8, one row to add": (int8, X, W, B, draw(5)),
    "norm, one weight": (rms_norm, X, draw(1), 1e-5),
    "gated norm, one gate": (gated_rms_norm, X, draw(2, 1, 1), draw(12), 1e-5, 2),
}


@pytest.mark.parametrize("function, given", [(one[0], one[1:]) for one in REFUSED.values()], ids=REFUSED.keys())
@pytest.mark.parametrize("few", [True, False], ids=["few rows", "many rows"])
@torch.no_grad()
def test_what_does_not_fit_is_refused(function, given, few):
    x, *more = given if few else (given[0].repeat(9, 1, 1), *given[1:])
    with pytest.raises((RuntimeError, ValueError)):
        function(x, *more)


@pytest.mark.parametrize("function, given", [(one[0], one[1:]) for one in BROADCAST.values()], ids=BROADCAST.keys())
@torch.no_grad()
def test_what_torch_broadcasts_is_broadcast(function, given):
    with native.off():
        want = function(*given)
    torch.testing.assert_close(function(*given), want)


@pytest.mark.parametrize("weight, bias", [((6, 17), None), ((5, 4), None), ((7, 4), None), ((6, 4), (7,))])
def test_the_convolution_s_kernel_refuses_what_it_has_no_room_for(weight, bias):
    with pytest.raises(ValueError, match="at most 16 taps, .* for 6 channels"):
        native.conv_silu(draw(2, 9, 6), draw(*weight), None if bias is None else draw(*bias), None)


@pytest.mark.parametrize("mixer", ["mamba1", "mamba2"])
@pytest.mark.parametrize("stored, other", [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)], ids=str)
@torch.no_grad()
def test_a_mixers_bias_of_another_type_is_read_as_what_it_is(mixer, stored, other):
    torch.manual_seed(0)
    model = Zamba(ZambaConfig(vocab_size=50, d_model=64, n_layers=1, n_shared_blocks=0, mixer=mixer)).to(stored)
    ids, bias = torch.arange(40)[None], model.layers[0].mamba.conv_bias
    bias.copy_(torch.linspace(-1, 1, len(bias)).bfloat16())
    want = model(ids)
    bias.data = bias.data.to(other)
    assert torch.equal(model(ids), want)


@pytest.mark.parametrize("stored, other", [(torch.bfloat16, torch.float32), (torch.float32, torch.bfloat16)], ids=str)
def test_operators_read_parameters_of_another_type_as_what_they_are(stored, other):
    x, weight, taps, bias = draw(2, 9, 12).to(stored), *(draw(*shape).bfloat16() for shape in ((12,), (12, 3), (12,)))
    norm_of = lambda dtype: torch.ops.zamba_lab.rms_norm(x, None, weight.to(dtype), 1e-5, 1, False)
    conv_of = lambda dtype: torch.ops.zamba_lab.conv_silu(x, taps.to(dtype), bias.to(dtype), None)[0]
    for operator in (norm_of, conv_of):
        assert torch.equal(operator(other), operator(stored))


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # torch's own, at its first forward-mode gradient
def test_forward_mode_gradients_are_seen():
    with torch.no_grad(), torch.autograd.forward_ad.dual_level():
        assert not direct.unseen()
        dual = torch.autograd.forward_ad.make_dual(X, torch.ones_like(X))
        tangent = torch.autograd.forward_ad.unpack_dual(linear(dual, W)).tangent
    torch.testing.assert_close(tangent, torch.ones_like(X) @ W.T)
    with torch.no_grad():
        assert direct.unseen()
