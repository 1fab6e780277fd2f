"""Which part of the model a logit comes from, when attention reaches the logits through mixers only.

A shared block's output t enters norm(x + t), the mixer's input, and never the stream: its *direct* share of a logit is 0 by
construction. But with its gates frozen a mixer is a linear map of its input (`mixers`), and so are the norms with their
scales frozen. Then the logits are a sum over sources:

    total     each source follows the stream to the end, through every mixer on the way
    direct    each mixer's output goes straight to the logits, split into what it made of the stream and what of t

What an attention head reads, or an MLP makes, of a source is not followed into it: a later t is a source of its own. What the
biases add has no source; it is the remainder.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from zamba_lab.lens.mixers import matrix_of, names_for_matrix, norm_factor, weight_and_bias
from zamba_lab.lens.parts import require_link_into_mixer
from zamba_lab.lens.passes import run
from zamba_lab.lens.terms import require_ssm, widened
from zamba_lab.model import Zamba
from zamba_lab.trace import Trace


@dataclass(frozen=True, eq=False)
class Attribution:
    """parts.sum(0) + remainder = logits."""

    sources: tuple[str, ...]
    parts: Tensor  # (source, b, l) of one token's logit at each position, or (source, b, l, v) of all
    remainder: Tensor  # (b, l) or (b, l, v): what biases add, and rounding
    logits: Tensor  # the model's own, of the same shape


def names_for_frozen_mixer(model: Zamba) -> list[str]:
    """The trace points, of all layers, that `frozen_mixer` reads."""
    return [*names_for_matrix("*"), "*.resid_in"] + ["invocation.*.link_out"] * bool(model.config.n_invocations)


def frozen_mixer(model: Zamba, trace: Trace, depth: int, mask: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """The mixer of one layer and the norm before it, as the linear map that they are with everything else held.

        model's layer:  x + mixer(norm(x + t))  =  x + map(x) + map(t) + what the biases add

    Args:
        trace: of a pass from the start of the sequence that kept `names_for_frozen_mixer(model)`.
        mask: (b, l), that of the pass.

    Returns: a map from (i, b, l, d), any number i of streams, to (i, b, l, d), float32 or wider.
    """
    matrix, x, link = matrix_of(model, trace, depth, mask), trace[f"layers.{depth}.resid_in"], f"layers.{depth}.shared.link_out"
    factor = norm_factor(model.layers[depth].norm, x + trace[link] if link in trace else x)
    return lambda streams: torch.stack([matrix.apply(factor * stream) for stream in streams])


@torch.no_grad()
def attribution(model: Zamba, ids: Tensor, of: Tensor | None = None, direct: bool = False, mask: Tensor | None = None) -> Attribution:
    """Split the logits by source.

    Args:
        ids: (b, l). mask: (b, l), see `passes`.
        of: (b, l) the token whose logit is split at each position, such as the next one; None: every token.
        direct: each mixer's output straight to the logits, instead of all paths through later mixers.

    The sources: `embed`; total: `invocation.k` for each; direct: `layers.i.mamba` (what the mixer made of the stream) and
    `invocation.k` (what it made of t). Raises ValueError if the model has no SSM, or `of` not the shape of ids.
    """
    require_ssm(model)
    require_link_into_mixer(model.config)
    if of is not None and of.shape != ids.shape:
        raise ValueError(f"of must have the shape of ids: got {tuple(of.shape)}, ids {tuple(ids.shape)}")
    last = f"layers.{model.config.n_layers - 1}.resid_out"
    trace = run(model, ids, keep=["logits", "embed", last, *names_for_frozen_mixer(model)], mask=mask)
    sources, streams = (_direct if direct else _total)(model, trace, mask)
    streams = streams * norm_factor(model.final_norm, trace[last])
    unembedding, _ = weight_and_bias(model.embedding if model.head is None else model.head)
    if of is None:
        logits, parts = widened(trace["logits"]), streams @ unembedding.mT
    else:
        logits = widened(trace["logits"].gather(-1, of[..., None])[..., 0])
        parts = (streams * unembedding[of]).sum(-1)
    return Attribution(sources, parts, logits - parts.sum(0), logits)


def _total(model: Zamba, trace: Trace, mask: Tensor | None) -> tuple[tuple[str, ...], Tensor]:
    """The names of the sources, and what of each is in the stream at the end, (source, b, l, d)."""
    c, x0 = model.config, widened(trace["embed"])
    streams = torch.stack([x0, *[torch.zeros_like(x0)] * c.n_invocations])
    for depth in range(c.n_layers):
        entering = streams
        if depth in c.hybrid_layers:
            k = c.hybrid_layers.index(depth)
            entering = streams.clone()
            entering[k + 1] += trace[f"invocation.{k}.link_out"]
        streams = streams + frozen_mixer(model, trace, depth, mask)(entering)
    return ("embed", *(f"invocation.{k}" for k in range(c.n_invocations))), streams


def _direct(model: Zamba, trace: Trace, mask: Tensor | None) -> tuple[tuple[str, ...], Tensor]:
    """The same, each mixer's output split into what it made of the stream and of the invocation."""
    c, names, streams = model.config, ["embed"], [widened(trace["embed"])]
    for depth in range(c.n_layers):
        entering = [trace[f"layers.{depth}.resid_in"]]
        names.append(f"layers.{depth}.mamba")
        if depth in c.hybrid_layers:
            entering.append(trace[f"layers.{depth}.shared.link_out"])
            names.append(f"invocation.{c.hybrid_layers.index(depth)}")
        streams += list(frozen_mixer(model, trace, depth, mask)(torch.stack(entering)))
    return tuple(names), torch.stack(streams)
