"""Causal attention with rotary positions: fused when only the result is wanted, in steps when its parts are."""

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor


def angles(positions: Tensor, dtype: torch.dtype, p: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the angles position * theta^(-2i/p) by which `rotate` rotates, the same for every invocation.

    Args:
        positions: (b or 1, l) integers. p: width of a head, even. theta: > 0.

    Returns: (b or 1, 1, l, p/2) each. Angles are float32 or wider, cosine and sine are cast to dtype as in the released code.
    """
    wide = torch.promote_types(dtype, torch.float32)
    frequency = theta ** (torch.arange(0, p, 2, device=positions.device).to(wide) / -p)  # (p/2,)
    angle = positions.to(wide)[:, None, :, None] * frequency
    return angle.cos().to(dtype), angle.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary position embedding over the whole head, in half-rotation layout (Su et al. 2021).

    Channel i and channel i + p/2 form a pair, rotated by the i-th of `angles`. x: (b, h, l, p). Returns (b, h, l, p).
    """
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def visible_keys(l: int, s: int, key_mask: Tensor | None = None, device=None) -> Tensor:
    """Which of s keys each of the last l positions may read: itself and what is before it, but no padding.

    Args:
        l, s: new positions, and all positions; l <= s.
        key_mask: (b, s) bool, False at padding, or None.

    Returns: (b or 1, 1, l, s) bool. A padding query sees itself, so that no row is empty; nothing reads its result.
    """
    rows = torch.arange(s - l, s, device=device)[:, None]
    columns = torch.arange(s, device=device)[None, :]
    visible = rearrange(columns <= rows, "l s -> 1 1 l s")
    if key_mask is None:
        return visible
    return (visible & rearrange(key_mask, "b s -> b 1 1 s")) | rearrange(columns == rows, "l s -> 1 1 l s")


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, visible: Tensor | None) -> Tensor:
    """softmax(q k^T * scale) v over the visible keys, fused.

    Args:
        q: (b, h, l, p), of the last l of s positions. k, v: (b, h', s, p), h' divides h (grouped-query attention).
        visible: from `visible_keys`; None if there is no padding: each position reads itself and all before it.

    Returns: (b, h, l, p).
    """
    l, s = q.shape[2], k.shape[2]
    if visible is None and 1 < l < s:
        visible = visible_keys(l, s, device=q.device)
    options = dict(attn_mask=visible, scale=scale)
    # By branches: of a size that a compiler leaves open, or a tracer writes down, a comparison is no bool.
    if visible is None and l > 1:
        options["is_causal"] = True
    if q.shape[1] != k.shape[1]:
        options["enable_gqa"] = True
    return F.scaled_dot_product_attention(q, k, v, **options)


def attention_scores(q: Tensor, k: Tensor, scale: float, visible: Tensor | None) -> Tensor:
    """The scaled scores themselves, -inf where hidden. Arguments as `attend`. Returns (b, h, l, s)."""
    k = repeat(k, "b h s p -> b (h i) s p", i=q.shape[1] // k.shape[1])
    if visible is None and q.shape[2] > 1:
        visible = visible_keys(q.shape[2], k.shape[2], device=q.device)
    scores = torch.einsum("bhlp,bhsp->bhls", q, k) * scale
    return scores if visible is None else scores.masked_fill(~visible, -torch.inf)


def attention_probs(scores: Tensor) -> Tensor:
    """Softmax over the keys in float32 or wider. scores: (b, h, l, s); the result has its shape and dtype."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32)).softmax(-1).to(scores.dtype)


def weigh(probs: Tensor, v: Tensor) -> Tensor:
    """Mix the values by given probabilities. probs: (b, h, l, s); v: (b, h', s, p). Returns (b, h, l, p)."""
    return torch.einsum("bhls,bhsp->bhlp", probs, repeat(v, "b h s p -> b (h i) s p", i=probs.shape[1] // v.shape[1]))
