"""Generation: prefill once, then one step a token. Sampling is a chain of filters on the logits."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from zamba_lab.cache import Cache
from zamba_lab.decoder import Decoder, serves
from zamba_lab.model import Zamba, check_tokens


def generate(
    model: Zamba,
    ids: Tensor,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    mask: Tensor | None = None,
    stop: Iterable[int] = (),
    seed: int | None = None,
    cache: Cache | None = None,
) -> Tensor:
    """Continue each prompt. A model whose rows outnumber its tokenizer's pieces never writes an id beyond those.

    Args:
        ids: (b, l) prompts, l >= 1; padded anywhere, if mask says where.
        max_new_tokens: 0 or more.
        temperature: 0 chooses the likeliest token; above, logits are divided by it and a token is drawn.
        top_k: draw from the k likeliest. top_p: from the smallest set of likeliest tokens whose probability reaches p,
            in (0, 1]. min_p: from tokens at least min_p times as probable as the likeliest, in [0, 1]. They apply in
            this order, each to what the one before left, after the temperature.
        mask: (b, l), 1 at tokens, 0 at padding.
        stop: token ids that end a row; such a row is filled up with its stop token. Generation ends when all have.
        seed: of the draws; None draws from torch's global generator.
        cache: of what was read before the prompts, which stays as it is: a saved state, or one of a `PrefixStore`.

    Returns: (b, n) new tokens, n <= max_new_tokens. Raises ValueError if an argument breaks a rule.
    """
    tokens = list(stream(model, ids, max_new_tokens, temperature, top_k, top_p, min_p, mask, stop, seed, cache))
    return torch.stack(tokens, dim=1) if tokens else ids[:, :0].clone()


def stream(
    model: Zamba,
    ids: Tensor,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    mask: Tensor | None = None,
    stop: Iterable[int] = (),
    seed: int | None = None,
    cache: Cache | None = None,
) -> Iterator[Tensor]:
    """The tokens of `generate` one by one, (b,) each. Arguments are checked when called, not at the first token.

    The model must not be changed before the last token.
    """
    check_sampling(max_new_tokens, temperature, top_k, top_p, min_p, seed)
    stop = check_stop(stop, model.config.vocab_size)
    check_tokens(ids, mask, cache, model.config.vocab_size)
    generator = None if seed is None else torch.Generator(ids.device).manual_seed(seed)
    steps = _steps(model, ids, mask, cache, max_new_tokens, stop, (temperature, top_k, top_p, min_p, generator))
    return (token.clone() for token in steps)  # ordinary tensors, not of inference mode, and the caller's own


@torch.inference_mode()
def _steps(model: Zamba, ids: Tensor, mask: Tensor | None, cache: Cache | None, count: int, stop: tuple[int, ...], how) -> Iterator[Tensor]:
    stops, ended, decoder, token = ids.new_tensor(stop), None, None, ids[:, -1]
    pieces = min(model.config.vocab_size, getattr(model.tokenizer, "vocab_size", model.config.vocab_size))
    for i in range(count):
        if i == 0:
            logits, cache = model.extend(ids, cache, mask, last_only=True)
            decoder = Decoder(model, cache) if type(model) is Zamba and serves(model, len(ids)) else None
        elif decoder is not None:
            logits = decoder.step(token)[:, None]
        else:
            logits, cache = model.extend(token[:, None], cache)
        fresh = sample(logits[:, -1, :pieces], *how).to(ids.dtype)
        token = fresh if ended is None else torch.where(ended, token, fresh)
        yield token
        if stop:
            ended = torch.isin(token, stops) if ended is None else ended | torch.isin(token, stops)
            if ended.all():
                return


def sample(
    logits: Tensor,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Choose a token from (b, v) logits; arguments as `generate`. Returns (b,)."""
    if temperature == 0:
        return logits.argmax(-1)
    probs = filtered_probs(logits, temperature, top_k, top_p, min_p)
    return torch.multinomial(probs, 1, generator=generator)[:, 0]


def filtered_probs(
    logits: Tensor, temperature: float, top_k: int | None = None, top_p: float | None = None, min_p: float | None = None
) -> Tensor:
    """The distribution that is drawn from, (b, v), float32 or wider: what the filters drop is exactly 0."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    # From 0 down, so that no temperature, however small, makes a logit too large for its dtype.
    logits = (logits - logits.amax(-1, keepdim=True)) / max(temperature, torch.finfo(logits.dtype).tiny)
    if top_k is not None and top_k < logits.shape[-1]:
        kth = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < kth, -torch.inf)
    if top_p is not None:
        ordered, order = logits.sort(descending=True, stable=True)
        probs = ordered.softmax(-1)
        before = probs.cumsum(-1) - probs  # the set ends with the token that reaches p
        drop = torch.zeros_like(order, dtype=torch.bool).scatter(-1, order, before >= top_p)
        logits = logits.masked_fill(drop, -torch.inf)
    probs = logits.softmax(-1)
    if min_p is not None:
        probs = probs.masked_fill(probs < min_p * probs.amax(-1, keepdim=True), 0)
        probs = probs / probs.sum(-1, keepdim=True)
    return probs


def check_sampling(
    max_new_tokens: int, temperature: float, top_k: int | None, top_p: float | None, min_p: float | None, seed: int | None = None
) -> None:
    """Raise ValueError with the rule and the value."""
    rules = (
        (_whole(max_new_tokens) and max_new_tokens >= 0, f"max_new_tokens must be an integer of 0 or more: got {max_new_tokens!r}"),
        (_real(temperature) and temperature >= 0, f"temperature must be 0 (greedy) or a number above: got {temperature!r}"),
        (top_k is None or (_whole(top_k) and top_k >= 1), f"top_k must be an integer of 1 or more, or None: got {top_k!r}"),
        (top_p is None or (_real(top_p) and 0 < top_p <= 1), f"top_p must lie in (0, 1], or be None: got {top_p!r}"),
        (min_p is None or (_real(min_p) and 0 <= min_p <= 1), f"min_p must lie in [0, 1], or be None: got {min_p!r}"),
        (seed is None or (_whole(seed) and -(1 << 63) <= seed < 1 << 63), f"seed must be an integer of 64 bits, or None: got {seed!r}"),
    )
    for holds, message in rules:
        if not holds:
            raise ValueError(message)


def check_stop(stop: Iterable[int], vocab_size: int) -> tuple[int, ...]:
    """The stop tokens as a tuple. Raises ValueError if they are none."""
    stops: tuple[Any, ...] = tuple(stop) if isinstance(stop, Iterable) else (None,)
    if not all(_whole(token) and 0 <= token < vocab_size for token in stops):
        raise ValueError(f"stop must be a list of token ids, each in 0..{vocab_size - 1}: got {stop!r}")
    return tuple(map(int, stops))


def _whole(value) -> bool:
    """Whether this is an integer: Python's, numpy's or a tensor's."""
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _real(value) -> bool:
    return hasattr(value, "__float__") and math.isfinite(value)
