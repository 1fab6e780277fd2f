"""The loss in pieces: the same number and the same gradient as of all logits at once, and only where it is worth it."""

from dataclasses import replace

import pytest
import torch
from variants import BASE, make_model

import zamba_lab as zl
from zamba_lab.ops import loss as losses
from zamba_lab.ops.loss import IGNORE, in_pieces, loss_in_pieces, summed_loss, token_nll

THERE = pytest.mark.skipif(not hasattr(torch.nn, "LinearCrossEntropyOptions"), reason="this torch has no linear_cross_entropy in chunks")


def some_targets(b, l, v):
    targets = torch.randint(v, (b, l), generator=torch.Generator().manual_seed(1))
    targets[0, ::3] = IGNORE
    return targets


def test_each_targets_loss_is_minus_its_log_probability_and_nothing_where_none_is_asked():
    logits, targets = torch.randn(2, 7, 11, generator=torch.Generator().manual_seed(0)).bfloat16(), some_targets(2, 7, 11)
    nll, asked = token_nll(logits, targets), targets != IGNORE
    assert nll.shape == targets.shape and nll.dtype == torch.float32 and (nll[~asked] == 0).all() and asked.any()
    log_probs = logits.double().log_softmax(-1)
    expected = -log_probs.gather(-1, targets.clamp(min=0)[..., None])[..., 0][asked]
    torch.testing.assert_close(nll[asked].double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(nll.sum(), summed_loss(logits, targets))
    assert token_nll(logits.double(), targets).dtype == torch.float64


@pytest.fixture
def always(monkeypatch):
    """Pieces of a few rows, at any size."""
    monkeypatch.setattr(losses, "LARGE", 0)
    monkeypatch.setattr(losses, "PIECE", 200)


@THERE
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_in_pieces_loss_and_gradients_are_those_of_all_logits(always, monkeypatch, tied, dtype, tolerance):
    model = make_model(replace(BASE, tie_embeddings=tied, vocab_size=67)).to(dtype)
    ids, targets = torch.randint(67, (3, 40)), some_targets(3, 40, 67)
    used = []
    monkeypatch.setattr("zamba_lab.model.loss_in_pieces", lambda *a: used.append(a) or loss_in_pieces(*a))
    whole = summed_loss(model(ids), targets)
    expected = torch.autograd.grad(whole, list(model.parameters()), allow_unused=True)
    found = model(ids, targets=targets)
    assert used and found.dtype == whole.dtype and found.shape == ()
    torch.testing.assert_close(found, whole, rtol=tolerance, atol=0)
    for one, other in zip(torch.autograd.grad(3 * found, list(model.parameters()), allow_unused=True), expected):
        torch.testing.assert_close(one, 3 * other, rtol=0, atol=10 * tolerance * max(1, other.abs().max().item()))


@THERE
def test_only_large_logits_of_full_precision_come_in_pieces():
    x, weight = torch.zeros(2, 512, 64), torch.nn.Parameter(torch.zeros(4096, 64))
    assert in_pieces(x, weight)
    assert not in_pieces(x[:1, :100], weight)  # few
    assert not in_pieces(x.bfloat16(), weight.bfloat16()) and not in_pieces(x.bfloat16(), weight)
    assert not in_pieces(torch.zeros(8192, 600), torch.zeros(599, 600))  # a row of them is shorter than one of x
    assert not in_pieces(x, None)  # int8 weights
    with torch.autocast("cpu", torch.bfloat16):
        assert not in_pieces(x, weight)


def test_a_torch_without_it_takes_all_logits(always, monkeypatch):
    monkeypatch.delattr(torch.nn, "LinearCrossEntropyOptions", raising=False)
    model, ids = make_model(BASE), torch.randint(BASE.vocab_size, (2, 40))
    assert torch.equal(model(ids, targets=ids), summed_loss(model(ids), ids))


@pytest.mark.parametrize("l", [1, 17])
def test_without_pieces_the_loss_is_that_of_the_logits(l):
    model = make_model(BASE)
    ids, targets = torch.randint(BASE.vocab_size, (2, l)), torch.randint(BASE.vocab_size, (2, l))
    with torch.no_grad():
        torch.testing.assert_close(model(ids, targets=targets), summed_loss(model(ids), targets))
        trace = zl.Trace("logits")
        assert torch.equal(model(ids, trace=trace, targets=targets), summed_loss(trace["logits"], targets))
        torch.testing.assert_close(zl.quantize(model, keep=())(ids, targets=targets), summed_loss(model(ids), targets))


def test_targets_of_another_shape_are_refused():
    with pytest.raises(ValueError, match="targets must have the shape of ids"):
        make_model(BASE)(torch.zeros(2, 5, dtype=torch.int64), targets=torch.zeros(2, 4, dtype=torch.int64))
