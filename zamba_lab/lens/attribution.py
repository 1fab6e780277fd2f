"""Which part of the model a logit comes from, when attention speaks only through a mixer.

A shared block's output t enters norm(x + t), the mixer's input, and never the stream: its *direct* share of a logit is 0 by
construction. But hold what selects, and what scales, as it was in this pass - gates, step sizes, B, C, the SiLUs' slopes, the
norms' scales - and a mixer is a linear map of its input. Then the logits are a sum over where things came from:

    total     each source follows the stream to the end, through every mixer on the way
    direct    each mixer's output goes straight to the logits, split into what it made of the stream and what of t

What an attention head reads, or an MLP makes, of a source is not followed into it: a later t is a source of its own. What the
biases add has no source; it is the remainder.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor

from zamba_lab.blocks.mamba2 import GATED_NORM_EPS
from zamba_lab.blocks.mixer import taps as conv_taps
from zamba_lab.lens.parts import require_link_into_mixer
from zamba_lab.lens.passes import run
from zamba_lab.lens.states import decay_rates, require_ssm
from zamba_lab.model import Zamba
from zamba_lab.ops.conv import causal_conv
from zamba_lab.ops.scan import selective_scan
from zamba_lab.ops.ssd import skip, ssd
from zamba_lab.trace import Trace

SCAN = {"mamba1": selective_scan, "mamba2": ssd}
KEEP = (
    "logits",
    "*.resid_in",
    "*.resid_out",
    "*.mamba.input",
    "*.mamba.projected",
    "*.mamba.dt",
    "*.mamba.B",
    "*.mamba.C",
    "*.mamba.y",
    "*.mamba.out",
)


@dataclass(frozen=True, eq=False)
class Attribution:
    """parts.sum(0) + remainder = logits."""

    sources: tuple[str, ...]
    parts: Tensor  # (source, b, l) of one token's logit at each position, or (source, b, l, v) of all
    remainder: Tensor  # (b, l) or (b, l, v): what biases add, and rounding
    logits: Tensor  # the model's own, of the same shape


def frozen_mixer(model: Zamba, trace: Trace, depth: int) -> Callable[[Tensor], Tensor]:
    """The mixer of one layer and the norm before it, as the linear map that they are with everything else held.

        model's layer:  x + mixer(norm(x + t))  =  x + map(x) + map(t) + what the biases add

    Args:
        trace: of a pass from the start of the sequence that kept `KEEP` (and `invocation.*.link_out`).

    Returns: a map from (i, b, l, d), any number i of streams, to (i, b, l, d).
    """
    layer, c = model.layers[depth], model.config
    mamba, at = layer.mamba, f"layers.{depth}"
    link = f"{at}.shared.link_out"
    x = trace[f"{at}.resid_in"] + (trace[link] if link in trace else 0)
    before = _scale(x, layer.norm.eps) * layer.norm.weight  # (b, l, d)
    taps, bias = conv_taps(mamba)[: c.d_inner], None if mamba.conv_bias is None else mamba.conv_bias[: c.d_inner]
    columns = slice(c.d_inner, 2 * c.d_inner) if c.mixer == "mamba2" else slice(c.d_inner)
    slope = torch.sigmoid(causal_conv(trace[f"{at}.mamba.projected"][..., columns], taps, bias)[0])
    after = _gate(model, trace, depth)
    dt, B, C = (trace[f"{at}.mamba.{name}"] for name in ("dt", "B", "C"))
    A = decay_rates(model, depth)

    def through(v: Tensor) -> Tensor:
        i = len(v)
        u = _without_bias(mamba.in_proj, before * v)[..., columns]
        u = causal_conv(rearrange(u, "i b l e -> (i b) l e"), taps, None)[0]
        u = rearrange(u * repeat(slope, "b l e -> (i b) l e", i=i), "b l (h p) -> b l h p", p=c.headdim)
        selected = (repeat(part, "b ... -> (i b) ...", i=i) for part in (dt, B, C))
        dts, Bs, Cs = selected
        y = skip(SCAN[c.mixer](u, dts, A, Bs, Cs)[0], u, mamba.D)
        return _without_bias(mamba.out_proj, rearrange(y, "(i b) l h p -> i b l (h p)", i=i) * after)

    return through


def _gate(model: Zamba, trace: Trace, depth: int) -> Tensor:
    """What the SSM's output is multiplied by, (b, l, e): the gate and, in Mamba-2, the norm after it."""
    c, mamba, at = model.config, model.layers[depth].mamba, f"layers.{depth}.mamba"
    columns = slice(c.d_inner) if c.mixer == "mamba2" else slice(c.d_inner, None)
    gate = F.silu(trace[f"{at}.projected"][..., columns])
    if c.mixer == "mamba1":
        return gate
    gated = rearrange(rearrange(trace[f"{at}.y"], "b l h p -> b l (h p)") * gate, "b l (g i) -> b l g i", g=c.gated_norm_groups)
    scale = repeat(_scale(gated, GATED_NORM_EPS), "b l g 1 -> b l (g i)", i=gated.shape[-1])
    return gate * scale * mamba.norm_weight


def _scale(x: Tensor, eps: float) -> Tensor:
    """What RMSNorm multiplies x by, (..., 1)."""
    return torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def _without_bias(projection, x: Tensor) -> Tensor:
    return projection(x) if projection.bias is None else projection(x) - projection.bias


@torch.no_grad()
def attribution(model: Zamba, ids: Tensor, of: Tensor | None = None, direct: bool = False) -> Attribution:
    """Split the logits by source.

    Args:
        ids: (b, l).
        of: (b, l) the token whose logit is split at each position, such as the next one; None: every token.
        direct: each mixer's output straight to the logits, instead of all paths through later mixers.

    The sources: `embed`; total: `invocation.k` for each; direct: `layers.i.mamba` (what the mixer made of the stream) and
    `invocation.k` (what it made of t). Raises ValueError if the model has no SSM, or `of` not the shape of ids.
    """
    require_ssm(model)
    require_link_into_mixer(model.config)
    if of is not None and of.shape != ids.shape:
        raise ValueError(f"of must have the shape of ids: got {tuple(of.shape)}, ids {tuple(ids.shape)}")
    c = model.config
    trace = run(model, ids, keep=[*KEEP, "embed", *(["invocation.*.link_out"] if c.n_invocations else [])])
    sources, streams = (_direct if direct else _total)(model, trace)
    end = trace[f"layers.{c.n_layers - 1}.resid_out"]
    streams = streams * (_scale(end, model.final_norm.eps) * model.final_norm.weight)

    def spoken(x: Tensor) -> Tensor:
        logits = model.embedding.logits(x) if model.head is None else model.head(x)
        return logits if of is None else logits.gather(-1, of[..., None])[..., 0]

    logits = trace["logits"] if of is None else trace["logits"].gather(-1, of[..., None])[..., 0]
    parts = torch.stack([spoken(stream) for stream in streams])
    return Attribution(sources, parts, logits - parts.sum(0), logits)


def _total(model: Zamba, trace: Trace) -> tuple[tuple[str, ...], Tensor]:
    """The names of the sources, and what of each is in the stream at the end, (source, b, l, d)."""
    c, x0 = model.config, trace["embed"]
    streams = torch.stack([x0, *[torch.zeros_like(x0)] * c.n_invocations])
    for depth in range(c.n_layers):
        entering = streams
        if depth in c.hybrid_layers:
            k = c.hybrid_layers.index(depth)
            entering = streams.clone()
            entering[k + 1] += trace[f"invocation.{k}.link_out"]
        streams = streams + frozen_mixer(model, trace, depth)(entering)
    return ("embed", *(f"invocation.{k}" for k in range(c.n_invocations))), streams


def _direct(model: Zamba, trace: Trace) -> tuple[tuple[str, ...], Tensor]:
    """The same, each mixer's output split into what it made of the stream and of the invocation."""
    c, names, streams = model.config, ["embed"], [trace["embed"]]
    for depth in range(c.n_layers):
        entering = [trace[f"layers.{depth}.resid_in"]]
        names.append(f"layers.{depth}.mamba")
        if depth in c.hybrid_layers:
            entering.append(trace[f"layers.{depth}.shared.link_out"])
            names.append(f"invocation.{c.hybrid_layers.index(depth)}")
        streams += list(frozen_mixer(model, trace, depth)(torch.stack(entering)))
    return tuple(names), torch.stack(streams)
