"""One token through the native forms, against the forms of a sequence, as stored in three types."""

from dataclasses import replace

import pytest
import torch
from variants import VARIANTS, make_model, random_ids

import zamba_lab as zl
from zamba_lab import native
from zamba_lab.native.call import call, suffix
from zamba_lab.ops.attention import angles, attend, rotate

pytestmark = pytest.mark.skipif(not native.available(), reason=f"no native kernels: {native.why_not()}")

WIDE = replace(VARIANTS["base"], d_model=128, headdim=32, d_state=40, n_groups=2, d_mlp=64)  # more than one vector


def draw(*shape, dtype, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-11), (torch.float32, 1e-4), (torch.bfloat16, 0.1)], ids=str)
@pytest.mark.parametrize(
    "config",
    [WIDE, replace(WIDE, n_groups=1, d_conv=1), replace(WIDE, dt_min=0.1, conv_bias=False)],
    ids=["wide", "one group, one tap", "dt clamp"],
)
@torch.no_grad()
def test_a_step_is_as_near_to_float64_as_the_pure_forms_are(config, dtype, tolerance):
    """Of bfloat16 and float32: the distance from float64, which rounded weights alone account for in part."""
    model, ids = make_model(config), random_ids(config)
    rounded = model.to(dtype)
    exact = make_model(config)
    exact.load_state_dict(rounded.state_dict())
    exact = exact.double()
    want = exact(ids)[:, -1:]
    _, cache = rounded.extend(ids[:, :-1])
    size = want.square().mean().sqrt()
    with native.off():
        pure = (rounded.extend(ids[:, -1:], cache)[0] - want).square().mean().sqrt() / size
    found = (rounded.extend(ids[:, -1:], cache)[0] - want).square().mean().sqrt() / size
    assert found < tolerance and found < max(1.5 * pure, 1e-11)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.02)], ids=str)
@pytest.mark.parametrize("h, g, p", [(4, 4, 6), (8, 2, 40), (3, 1, 64)])
@pytest.mark.parametrize("hidden", [False, True])
def test_attention_of_one_token_equals_attention_over_the_sequence(h, g, p, hidden, dtype, tolerance):
    b, s = 2, 37
    q, k, v = draw(b, h, 1, p, dtype=dtype, seed=0), draw(b, g, s, p, dtype=dtype, seed=1), draw(b, g, s, p, dtype=dtype, seed=2)
    place = torch.tensor([[36], [20]])
    seen = torch.rand(b, 1, 1, s, generator=torch.Generator().manual_seed(3)) < 0.5 if hidden else None
    if hidden:
        seen[..., -1] = True
    by = angles(place, dtype, p, 100.0)
    last = rotate(k[:, :, -1:], *by)
    rotated = torch.cat([k[:, :, :-1], last], dim=2)
    want = attend(rotate(q, *by).double(), rotated.double(), v.double(), 0.3, seen)
    K, V = torch.full((b, g, s + 5, p), torch.nan, dtype=dtype), torch.full((b, g, s + 5, p), torch.nan, dtype=dtype)
    K[:, :, : s - 1], V[:, :, : s - 1] = k[:, :, :-1], v[:, :, :-1]
    last_k, last_v = (t[:, :, -1].contiguous() for t in (k, v))
    apart, seen_apart, got = p // 2, 0 if seen is None else s, torch.empty_like(q)
    sizes, tensors = (b, h, g, p, s, s + 5, 0.3), (q, last_k, last_v, *by, apart, K, V, seen, seen_apart, got)
    call("attend_step" + suffix(q), 0, *sizes, *tensors)
    torch.testing.assert_close(got.double().view(b, h, 1, p), want, rtol=0, atol=tolerance)
    torch.testing.assert_close(K[:, :, :s], rotated, rtol=0, atol=tolerance)
    assert torch.equal(V[:, :, s - 1], v[:, :, -1]) and V[:, :, s:].isnan().all()


@torch.no_grad()
def test_a_look_at_a_step_sees_what_the_step_does():
    model, ids = make_model(WIDE), random_ids(WIDE)
    _, cache = model.extend(ids[:, :-1])
    trace = zl.Trace(keep=["logits", "layers.2.shared.attn_probs"])
    torch.testing.assert_close(model.extend(ids[:, -1:], cache, trace=trace)[0], model.extend(ids[:, -1:], cache)[0], rtol=0, atol=1e-11)
    assert trace["layers.2.shared.attn_probs"].shape[-1] == 19
