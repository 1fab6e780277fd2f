from functools import partial

import pytest
import torch
from native.test_native import assert_same, assert_same_bits, draw

from zamba_lab import native
from zamba_lab.ops.attention import angles, attend, attention_probs, attention_scores, turn, visible_keys, weigh


def qkv(l: int, s: int, heads: int = 4, kv_heads: int = 2, seed: int = 0):
    make = torch.Generator().manual_seed(seed)
    draw = lambda h, n: torch.randn(3, h, n, 6, generator=make, dtype=torch.float64)
    return draw(heads, l), draw(kv_heads, s), draw(kv_heads, s)


@pytest.mark.parametrize("l, s", [(1, 1), (9, 9), (1, 9), (4, 9)])
@pytest.mark.parametrize("padded", [False, True])
def test_fused_equals_step_by_step(l, s, padded):
    q, k, v = qkv(l, s)
    key_mask = torch.rand(3, s, generator=torch.Generator().manual_seed(1)) < 0.6 if padded else None
    visible = visible_keys(l, s, key_mask) if padded else None
    probs = attention_probs(attention_scores(q, k, 0.3, visible))
    torch.testing.assert_close(probs.sum(-1), torch.ones_like(probs.sum(-1)))
    torch.testing.assert_close(attend(q, k, v, 0.3, visible), weigh(probs, v))


@pytest.mark.parametrize("l, s", [(9, 9), (1, 9), (4, 9)])
def test_a_query_reads_itself_and_the_past_but_no_padding(l, s):
    key_mask = torch.rand(3, s, generator=torch.Generator().manual_seed(1)) < 0.6
    q, k, _ = qkv(l, s)
    for mask in (None, key_mask):
        probs = attention_probs(attention_scores(q, k, 0.3, None if mask is None else visible_keys(l, s, mask)))
        torch.testing.assert_close(probs, attention_probs(attention_scores(q, k, 0.3, visible_keys(l, s, mask))))
        for row in range(3):
            for i in range(l):
                own = s - l + i
                allowed = {j for j in range(own + 1) if mask is None or mask[row, j]} | {own}
                assert {j for j in range(s) if probs[row, 0, i, j] > 0} == allowed


def test_grouped_queries_read_the_head_of_their_group():
    q, k, v = qkv(9, 9)
    full_k, full_v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
    torch.testing.assert_close(attend(q, k, v, 0.3, None), attend(q, full_k, full_v, 0.3, None))


def test_rotation_turns_each_pair_by_its_angle_and_scores_depend_on_distance_only():
    q, k, _ = qkv(9, 9, kv_heads=4)
    near, far = (angles(torch.arange(9)[None] + past, torch.float64, 6, theta=100.0) for past in (0, 70))
    turned = turn(q, *near)
    for t, i in ((0, 0), (5, 1), (8, 2)):
        angle = torch.tensor(t * 100.0 ** (-2 * i / 6), dtype=torch.float64)
        a, b = q[0, 1, t, i], q[0, 1, t, i + 3]
        torch.testing.assert_close(turned[0, 1, t, i], a * angle.cos() - b * angle.sin())
        torch.testing.assert_close(turned[0, 1, t, i + 3], b * angle.cos() + a * angle.sin())
    here = attention_scores(turned, turn(k, *near), 1.0, None)
    there = attention_scores(turn(q, *far), turn(k, *far), 1.0, None)
    torch.testing.assert_close(here, there)


needs_native = pytest.mark.skipif(not native.available(), reason=f"no native kernels: {native.why_not()}")
LAYOUTS = {
    "as projected": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "plain": lambda x: x,
    "gaps": lambda x: x.mT.contiguous().mT,
    "columns": lambda x: torch.cat([x, x], -1)[..., : x.shape[-1]],
}


def pure(*arguments):
    with native.off():
        return (turn(*arguments),)


@needs_native
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("b, h, l, p, tables", [(2, 3, 37, 6, 1), (1, 1, 1, 2, 1), (3, 4, 5, 70, 3), (2, 1, 9, 32, 2)])
def test_the_native_rotation_equals_torchs_with_gradients(layout, b, h, l, p, tables):
    cos, sin = angles(torch.arange(l)[None] + torch.arange(tables)[:, None], torch.float64, p, 100.0)
    assert_same(lambda x: (native.turn(x, cos, sin),), lambda x: pure(x, cos, sin), [layout(draw(b, h, l, p))], 1e-14)


@needs_native
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 3e-7), (torch.bfloat16, 6e-3)])
def test_the_native_rotation_in_other_types_rounds_once(dtype, tolerance):
    x, (cos, sin) = draw(2, 3, 40, 16).to(dtype), angles(torch.arange(40)[None], dtype, 16, 100.0)
    (want,) = pure(x.double(), cos.double(), sin.double())
    torch.testing.assert_close(turn(x, cos, sin).double(), want, rtol=0, atol=tolerance * want.abs().max().item())
    assert turn(x, cos, sin).dtype == dtype


@needs_native
def test_the_native_rotation_keeps_torchs_contract(monkeypatch):
    x, (cos, sin) = draw(2, 3, 9, 6).requires_grad_(), angles(torch.arange(9)[None], torch.float64, 6, 100.0)
    torch.library.opcheck(
        torch.ops.zamba_lab.turn.default, [x, cos, sin, False], test_utils=("test_schema", "test_autograd_registration", "test_faketensor")
    )
    compiled = torch.compile(partial(turn, cos=cos, sin=sin), backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x), turn(x, cos, sin))
    assert_same_bits(monkeypatch, lambda x: (turn(x, cos, sin),), [x.detach()])


@pytest.mark.parametrize("shape", [(2, 1, 9, 1), (1, 1, 1, 3), (2, 3, 9, 3)], ids=["for all channels", "for all positions", "for a head"])
def test_angles_of_another_shape_go_to_torch_which_broadcasts(shape):
    x, angle = draw(2, 3, 9, 6), draw(*shape)
    assert torch.equal(turn(x, angle.cos(), angle.sin()), turn(x, *(t.expand(2, 3, 9, 3) for t in (angle.cos(), angle.sin()))))
    torch.testing.assert_close(turn(x, angle.cos(), angle.sin()).norm(dim=-1), x.norm(dim=-1))
