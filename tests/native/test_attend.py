"""Attention on a matrix unit against float64 (elsewhere the same tiles in plain C), and when it keeps out of the way."""

import pytest
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from zamba_lab.ops import attention as ops
from zamba_lab import native
from zamba_lab.native import attend as tiles
from zamba_lab.native import call, unit

pytestmark = pytest.mark.skipif(not native.available() or unit.matrix_unit() < 0, reason="no native kernels, or tiles refused")

# b, h, h', l, s, p: of a tile and one more or less, of the keys taken at once, of the queries of a task; positions before the first
SIZES = [
    (1, 1, 1, 1, 1, 32),
    (2, 2, 2, 32, 32, 64),
    (1, 2, 1, 33, 33, 32),
    (1, 4, 2, 31, 31, 160),
    (3, 2, 2, 128, 128, 32),
    (1, 6, 2, 129, 300, 96),
    (2, 1, 1, 1, 70, 32),
    (1, 2, 2, 70, 1000, 64),
    (1, 1, 1, 513, 530, 32),
    (1, 3, 3, 1030, 1030, 32),
]
LAYOUTS = {
    "as projected": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "plain": lambda x: x,
    "columns": lambda x: torch.cat([x, x], -1)[..., : x.shape[-1]],
    "room behind": lambda x: torch.cat([x, x], 2)[:, :, : x.shape[2]],
}


def given(b: int, h: int, kv: int, l: int, s: int, p: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    make = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(b, heads, n, p, generator=make).bfloat16() for heads, n in ((h, l), (kv, s), (kv, s)))


def exact(q, k, v, scale):
    """The result in float64, and the same of the values' magnitudes: what errors of probabilities are measured by."""
    visible = ops.visible_keys(q.shape[2], k.shape[2])
    probs = ops.attention_probs(ops.attention_scores(q.double(), k.double(), scale, visible))
    return ops.weigh(probs, v.double()), ops.weigh(probs, v.double().abs())


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("scale", [0.1, 2.0])
def test_it_equals_attention_in_float64_but_for_two_roundings(sizes, layout, scale):
    q, k, v = map(layout, given(*sizes))
    got, (want, size) = tiles.attend(q, k, v, scale), exact(q, k, v, scale)
    assert got.dtype == torch.bfloat16 and got.shape == want.shape and got.transpose(1, 2).is_contiguous()
    half = 2**-8  # of a unit of bfloat16, relative: of a probability and of the result
    assert ((got.double() - want).abs() <= half * want.abs() + 1.02 * half * size).all()


def test_it_is_no_further_from_float64_than_torch_is():
    q, k, v = given(2, 4, 4, 512, 512, 64)
    want, _ = exact(q, k, v, 0.125)
    ours, torchs = (
        y.double().sub(want).square().mean()
        for y in (tiles.attend(q, k, v, 0.125), F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.125))
    )
    assert ours < 1.05 * torchs


def test_neither_threads_nor_pieces_nor_what_comes_later_change_a_bit(monkeypatch):
    monkeypatch.setattr(call, "WORTH_A_THREAD", 1)  # or work as small as this stays on five threads
    q, k, v = given(1, 3, 3, 700, 700, 32)
    whole, before = tiles.attend(q, k, v, 0.2), torch.get_num_threads()
    try:
        for threads in (1, 2, 5, 24):  # with many the queries of a head are divided
            torch.set_num_threads(threads)
            assert torch.equal(tiles.attend(q, k, v, 0.2), whole)
    finally:
        torch.set_num_threads(before)
    for start, end in ((0, 200), (200, 333), (333, 334), (334, 700)):
        piece = tiles.attend(q[:, :, start:end], k[:, :, :end], v[:, :, :end], 0.2)
        assert torch.equal(piece, whole[:, :, start:end])
    k[:, :, 401:], v[:, :, 401:] = 5, -7
    changed = tiles.attend(q, k, v, 0.2)
    assert torch.equal(changed[:, :, :401], whole[:, :, :401]) and not torch.equal(changed, whole)


@pytest.mark.parametrize("past, reach", [(0, 31), (1, 62)])
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_what_is_not_finite_shows_where_it_is_read_and_a_little_before(value, past, reach):
    parts = given(1, 2, 2, 200, 200 + past, 32)
    want = tiles.attend(*parts, 0.2)
    for part, row in zip(parts, (150, 170, 190)):
        at = row + (0 if part is parts[0] else past)
        before, part[0, 0, at] = part[0, 0, at].clone(), value
        got = tiles.attend(*parts, 0.2)
        assert torch.equal(got[:, 1], want[:, 1])  # no other head
        assert torch.equal(got[:, 0, : row - reach], want[:, 0, : row - reach])
        assert not got[0, 0, row].isfinite().any()
        if part is parts[0]:
            assert got[0, 0, row + 1 :].isfinite().all()
        part[0, 0, at] = before


def test_it_is_taken_for_many_queries_in_inference_and_for_nothing_else(monkeypatch):
    taken = []
    monkeypatch.setattr(tiles, "matrix_unit", lambda: 1)
    monkeypatch.setattr(tiles, "_attend", lambda *given, real=tiles._attend: taken.append(1) or real(*given))

    def took(sizes=(1, 2, 1, 64, 128, 32), dtype=torch.bfloat16, scale=0.2, visible=None, layout=LAYOUTS["plain"]) -> bool:
        q, k, v = (layout(t.to(dtype)) for t in given(*sizes))
        taken.clear()
        y = ops.attend(q, k, v, scale, visible)
        torch.testing.assert_close(y.double(), exact(q, k, v, scale)[0], rtol=0.02, atol=0.02)
        return bool(taken)

    assert not took()  # gradients may be wanted
    with torch.no_grad():
        assert took() and took(layout=LAYOUTS["as projected"])
        assert took(layout=lambda x: x[:, :, :1].expand(x.shape))
        for sizes in ((1, 2, 1, 63, 128, 32), (1, 2, 1, 64, 127, 32), (1, 2, 1, 64, 128, 48)):
            assert not took(sizes)
        assert not took(dtype=torch.float32) and not took(scale=-0.2)
        assert not took(visible=ops.visible_keys(64, 128)) and not took(layout=lambda x: x.mT.contiguous().mT)
        with native.off():
            assert not took()
        with FlopCounterMode(display=False) as counted:
            assert not took()
        assert counted.get_total_flops() > 0
        with profile(activities=[ProfilerActivity.CPU]) as found:
            assert took()
        assert "zamba_lab::attend" in {event.key for event in found.key_averages()}
        monkeypatch.setattr(tiles, "matrix_unit", lambda: 0)
        assert not took()


class Other(torch.Tensor):
    """Not an ordinary tensor."""


@torch.no_grad()
def test_other_tensors_and_those_that_do_not_fit_each_other_are_torchs(monkeypatch):
    monkeypatch.setattr(tiles, "matrix_unit", lambda: 1)
    monkeypatch.setattr(tiles, "_attend", lambda *given: pytest.fail("a kernel was given this"))
    q, k, v = given(2, 2, 1, 64, 128, 32)
    assert ops.attend(*(t.to("meta") for t in (q, k, v)), 0.2, None).is_meta
    assert type(ops.attend(*(t.as_subclass(Other) for t in (q, k, v)), 0.2, None)) is Other
    want = exact(q, k[:1].expand(2, 1, 128, 32), v[:1].expand(2, 1, 128, 32), 0.2)[0]
    torch.testing.assert_close(ops.attend(q, k[:1], v[:1], 0.2, None).double(), want, rtol=0.02, atol=0.02)
    assert ops.attend(q, k, v[..., :16], 0.2, None).shape == (2, 2, 64, 16)
    for heads in (1, 3):
        with pytest.raises(RuntimeError):
            ops.attend(q[:, :1].expand(2, heads, 64, 32), k.expand(2, 2, 128, 32), v.expand(2, 2, 128, 32), 0.2, None)


def test_a_refused_matrix_unit_is_said(monkeypatch):
    monkeypatch.setattr(unit, "matrix_unit", lambda: -1)
    with pytest.raises(RuntimeError, match="does not let this process use"):
        tiles.attend(*given(1, 1, 1, 2, 2, 32), 0.2)
