import pytest
import torch
from native.test_native import draw

from zamba_lab.ops.attention import angles, attend, attention_probs, attention_scores, rotate, visible_keys, weigh


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
    rotated = rotate(q, *near)
    for t, i in ((0, 0), (5, 1), (8, 2)):
        angle = torch.tensor(t * 100.0 ** (-2 * i / 6), dtype=torch.float64)
        a, b = q[0, 1, t, i], q[0, 1, t, i + 3]
        torch.testing.assert_close(rotated[0, 1, t, i], a * angle.cos() - b * angle.sin())
        torch.testing.assert_close(rotated[0, 1, t, i + 3], b * angle.cos() + a * angle.sin())
    here = attention_scores(rotated, rotate(k, *near), 1.0, None)
    there = attention_scores(rotate(q, *far), rotate(k, *far), 1.0, None)
    torch.testing.assert_close(here, there)


@pytest.mark.parametrize("shape", [(2, 1, 9, 1), (1, 1, 1, 3), (2, 3, 9, 3)], ids=["for all channels", "for all positions", "for a head"])
def test_angles_of_another_shape_broadcast(shape):
    x, angle = draw(2, 3, 9, 6), draw(*shape)
    assert torch.equal(rotate(x, angle.cos(), angle.sin()), rotate(x, *(t.expand(2, 3, 9, 3) for t in (angle.cos(), angle.sin()))))
    torch.testing.assert_close(rotate(x, angle.cos(), angle.sin()).norm(dim=-1), x.norm(dim=-1))
