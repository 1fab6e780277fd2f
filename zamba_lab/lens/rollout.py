"""From mixer and attention to layers, from layers to the depth: which tokens a position's stream is made of.

A layer writes out_t into the stream. With the mixer's gates frozen (`mixers`), out_t is a sum over the mixer's inputs u_s;
at frozen norm u_s is a sum of the stream x_s and, in a hybrid layer, of the shared block's output t_s; and t_s came, at
frozen attention probabilities, from the tokens the attention read. So a hybrid layer reaches back twice: a token is read by
attention into r, and r is read by the mixer into t.

Shares are signed, exact parts of what stands in the stream after the layer: <part, x_out> / |x_out|^2, which sum to 1.
"""

from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from torch import Tensor

from zamba_lab.blocks import SharedBlock
from zamba_lab.blocks.lora import Adapters
from zamba_lab.blocks.mlp import GatedMLP
from zamba_lab.lens.mixers import matrix_of, names_for_matrix, norm_factor, weight_and_bias
from zamba_lab.lens.parts import require_link_into_mixer
from zamba_lab.lens.passes import run
from zamba_lab.lens.terms import require_index, require_ssm, widened
from zamba_lab.model import Zamba
from zamba_lab.ops.gate import ACTIVATION
from zamba_lab.trace import Trace


@dataclass(frozen=True)
class Flow:
    """Of what the stream after one layer consists, at each token, as shares that sum to 1."""

    depth: int
    kept: Tensor  # (b, l): the stream as it came in
    mixed: Tensor  # (b, h, l, s): stream of token s -> the mixer's head h
    block: Tensor  # (b, h, l, s): the shared block's output at token s -> the mixer's head h; zeros in a Mamba layer
    attended: Tensor  # (b, l, s): what the block read at token s -> the block elsewhere -> mixer: sum_h block @ attention
    constant: Tensor  # (b, l): biases

    @property
    def tokens(self) -> Tensor:
        """All that comes from token s, (b, l, s): with `constant` it sums to 1."""
        return torch.diag_embed(self.kept) + self.mixed.sum(1) + self.attended


@torch.no_grad()
def layer_flow(model: Zamba, ids: Tensor, depth: int, mask: Tensor | None = None) -> Flow:
    """One layer's write taken apart by the tokens it came from, directly and through attention.

    `kept`, `mixed`, `block` and `constant` are exact. `attended` composes two exact tables, what the mixer took from the
    block at r and what the block's attention there took from s: their product holds the sums exactly, and assumes that
    what r passes on has the same makeup in whichever direction the mixer reads it.

    Args:
        ids: (b, l). depth: the layer, 0 <= depth < n_layers. mask: (b, l), see `passes`.

    Raises ValueError if there is no such layer, or its mixer is no SSM.
    """
    require_ssm(model)
    require_index("depth", depth, model.config.n_layers)
    return flow_of(model, run(model, ids, keep=names_for_flow(model, depth), mask=mask), depth, mask)


def names_for_flow(model: Zamba, depth: int) -> list[str]:
    """The trace points that `flow_of` reads."""
    shared = [f"layers.{depth}.shared.{name}" for name in ("link_out", "attn_probs", "v", "attn_out")]
    return names_for_matrix(depth) + [f"layers.{depth}.resid_in"] + shared * (depth in model.config.hybrid_layers)


@torch.no_grad()
def flow_of(model: Zamba, trace: Trace, depth: int, mask: Tensor | None = None) -> Flow:
    """`layer_flow` from a trace of a pass under `mask` that kept `names_for_flow(model, depth)`."""
    require_link_into_mixer(model.config)
    matrix, stream = matrix_of(model, trace, depth, mask), widened(trace[f"layers.{depth}.resid_in"])
    hybrid = depth in model.config.hybrid_layers
    t = widened(trace[f"layers.{depth}.shared.link_out"]) if hybrid else torch.zeros_like(stream)
    factor = norm_factor(model.layers[depth].norm, stream + t)
    after = stream + matrix.out
    toward = after / after.square().sum(-1, keepdim=True)
    mixed = matrix.shares(toward, factor * stream)
    block = matrix.shares(toward, factor * t) if hybrid else torch.zeros_like(mixed)
    attended = block.sum(1) @ attention_shares(model, trace, depth) if hybrid else torch.zeros_like(block[:, 0])
    return Flow(depth, (stream * toward).sum(-1), mixed, block, attended, matrix.constant_share(toward))


@torch.no_grad()
def attention_shares(model: Zamba, trace: Trace, depth: int) -> Tensor:
    """What each token adds to the attention's output at each token, along that output: (b, l, s), rows sum to 1.

    a_l = sum_s sum_h probs_hls W_o v_hs          share = <that term, a_l> / |a_l|^2
    """
    probs, a = (widened(trace[f"layers.{depth}.shared.{name}"]) for name in ("attn_probs", "attn_out"))
    return (probs * value_products(model, trace, depth, a / a.square().sum(-1, keepdim=True))).sum(1)


@dataclass(frozen=True)
class Rollout:
    """How the tokens of a text spread through the depth."""

    layers: Tensor  # (n_layers, b, l, s): each layer's magnitudes, rows sum to 1
    total: Tensor  # (n_layers, b, l, s): the product of all layers up to each one, rows sum to 1
    cancellation: Tensor  # (n_layers, b, l): sum of the shares' magnitudes over their sum; 1: nothing cancels


def rollout(model: Zamba, ids: Tensor, mask: Tensor | None = None) -> Rollout:
    """Multiply the layers' token-to-token tables down the depth (Abnar & Zuidema 2020, attention rollout).

    Each layer's table is |`Flow.tokens`|, rows made to sum to 1. That is a summary and no identity: magnitudes do not
    cancel as the parts do (`cancellation` says how much they would have), and a token is treated as one thing whatever
    direction of it a layer reads.

    Args:
        ids: (b, l). mask: (b, l), see `passes`.

    Raises ValueError if the model has no SSM.
    """
    require_ssm(model)
    depths = range(model.config.n_layers)
    trace = run(model, ids, keep=dict.fromkeys(name for depth in depths for name in names_for_flow(model, depth)), mask=mask)
    tables, totals, cancellations = [], [], []
    total = torch.eye(ids.shape[1], device=ids.device)
    for depth in depths:
        flow = flow_of(model, trace, depth, mask)
        sizes = flow.tokens.abs()
        magnitude = sizes.sum(-1)
        cancellations.append((magnitude + flow.constant.abs()) / (flow.tokens.sum(-1) + flow.constant))
        tables.append(sizes / magnitude[..., None])
        total = tables[-1] @ total.to(sizes.dtype)
        totals.append(total)
    return Rollout(torch.stack(tables), torch.stack(totals), torch.stack(cancellations))


@torch.no_grad()
def through_attention(model: Zamba, ids: Tensor, depth: int, at: int, mask: Tensor | None = None) -> Tensor:
    """What the mixer of a hybrid layer writes at one token, by the tokens whose values its attention read: exactly.

    Nothing is composed from shares here: the gradient by the mixer's input at each r is carried back through norm, link, MLP
    and value projections, with attention probabilities, the MLP's act(gate) and norm statistics as in the pass.

    Args:
        ids: (b, l). depth: a hybrid layer. at: the token written to, 0 <= at < l. mask: (b, l), see `passes`.

    Returns: (b, s): shares <part, out> / |out|^2 of the mixer's output. They sum to `block`'s part of it, less the MLP's
    biases. Raises ValueError if the layer is not hybrid or there is no such token.
    """
    if depth not in model.config.hybrid_layers:
        raise ValueError(f"depth must be one of hybrid_layers {model.config.hybrid_layers}: got {depth}")
    require_index("at", at, ids.shape[1])
    require_link_into_mixer(model.config)
    trace = run(model, ids, keep=names_for_flow(model, depth) + [f"layers.{depth}.shared.mlp_in"], mask=mask)
    stream, t, a, probs, mlp_in = (
        widened(trace[f"layers.{depth}.{name}"])
        for name in ("resid_in", "shared.link_out", "shared.attn_out", "shared.attn_probs", "shared.mlp_in")
    )
    layer, block = model.layers[depth], shared_block_at(model, depth)
    gradient = matrix_of(model, trace, depth, mask).gradient(at) * norm_factor(layer.norm, stream + t)
    gradient = gradient @ weight_and_bias(layer.invocation.link)[0]
    gradient = back_through_mlp(block.mlp, layer.invocation.adapters, model.config.activation, mlp_in, gradient)
    products = value_products(model, trace, depth, gradient * norm_factor(block.norm_mid, a))
    return (probs * products).sum((1, 2))


def shared_block_at(model: Zamba, depth: int) -> SharedBlock:
    """The shared block that runs at a hybrid layer."""
    return model.shared_blocks[model.config.blocks_by_invocation[model.config.hybrid_layers.index(depth)]]


def back_through_mlp(mlp: GatedMLP, adapters: Adapters, activation: str, mlp_in: Tensor, gradient: Tensor) -> Tensor:
    """Carry a gradient at the output of a gated MLP back to its input, act(gate) as it was. All (b, l, d)."""
    weight, bias = weight_and_bias(mlp.gate_up)
    if "mlp" in adapters:
        weight = weight + weight_and_bias(adapters["mlp"].up)[0] @ weight_and_bias(adapters["mlp"].down)[0]
    gate_weight, up_weight = weight.chunk(2)
    gate = mlp_in @ gate_weight.mT + bias.chunk(2)[0]
    return ((gradient @ weight_and_bias(mlp.down)[0]) * ACTIVATION[activation](gate)) @ up_weight


def value_products(model: Zamba, trace: Trace, depth: int, toward: Tensor) -> Tensor:
    """<toward_l, W_o v_hs> of each head and pair of tokens, (b, h, l, s). toward: (b, l, d) at the attention's output."""
    v, c = widened(trace[f"layers.{depth}.shared.v"]), model.config
    out_of, _ = weight_and_bias(shared_block_at(model, depth).attention.o)
    toward = torch.einsum("bld,dhp->bhlp", toward, rearrange(out_of, "d (h p) -> d h p", p=c.head_dim))
    return toward @ repeat(v, "b h s p -> b (h i) s p", i=c.attn_heads // c.kv_heads).mT
