"""Parts of the model with their steering detached, written from the model's own operations and without the lens."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

import zamba_lab as zl
from zamba_lab import lens
from zamba_lab.blocks.mamba2 import GATED_NORM_EPS
from zamba_lab.ops.conv import causal_conv
from zamba_lab.ops.gate import ACTIVATION
from zamba_lab.ops.scan import scan_recurrence
from zamba_lab.ops.ssd import skip, ssd_recurrence


def frozen_mixer(model: zl.Zamba, ids: Tensor, depth: int) -> Callable[[Tensor], Tensor]:
    """u -> out of one mixer, dt, B, C, gate, norm statistics and sigmoid(a) being those of the pass."""
    trace = lens.run(model, ids, keep=[f"layers.{depth}.mamba.*"])
    m, c = model.layers[depth].mamba, model.config
    dt, B, C, z, y0 = (trace[f"layers.{depth}.mamba.{name}"] for name in ("dt", "B", "C", "z", "y"))
    recurrence = ssd_recurrence if c.mixer == "mamba2" else scan_recurrence
    bias = None if m.conv_bias is None else m.conv_bias[: c.d_inner]
    gate = F.silu(z)
    if c.mixer == "mamba2":
        groups = (y0.flatten(2) * gate).unflatten(-1, (c.gated_norm_groups, -1))
        scale = (groups.square().mean(-1, keepdim=True) + GATED_NORM_EPS).rsqrt().expand_as(groups).flatten(2)
        gate = gate * scale * m.norm_weight

    def forward(u: Tensor) -> Tensor:
        start = c.d_inner if c.mixer == "mamba2" else 0
        a, _ = causal_conv(m.in_proj(u)[..., start : start + c.d_inner], m.conv_kernel[: c.d_inner], bias)
        x = (a * torch.sigmoid(a).detach()).unflatten(-1, (c.ssm_heads, c.headdim))
        y = skip(recurrence(x, dt, -torch.exp(m.A_log), B, C)[0], x, m.D)
        return m.out_proj(y.flatten(2) * gate)

    return forward


def frozen_layer(model: zl.Zamba, ids: Tensor, depth: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """A hybrid layer's values v (b, h', s, p), and v -> out of its mixer, everything else being that of the pass."""
    trace = lens.run(model, ids, keep=[f"layers.{depth}.*"])
    layer, block, c = model.layers[depth], model.blocks_by_depth()[depth], model.config
    adapters, mixer = layer.invocation.adapters, frozen_mixer(model, ids, depth)
    probs, a0, n0, x, t0 = (
        trace[f"layers.{depth}.{name}"] for name in ("shared.attn_probs", "shared.attn_out", "shared.mlp_in", "resid_in", "shared.link_out")
    )

    def gate_up(n: Tensor) -> Tensor:
        return block.mlp.gate_up(n) + (adapters["mlp"](n) if "mlp" in adapters else 0)

    act = ACTIVATION[c.activation](gate_up(n0).chunk(2, -1)[0]).detach()

    def forward(v: Tensor) -> Tensor:
        mixed = probs @ v.repeat_interleave(c.attn_heads // c.kv_heads, dim=1)
        a = block.attention.o(mixed.transpose(1, 2).flatten(2))
        n = a * block.norm_mid.weight / (a0.square().mean(-1, keepdim=True) + c.norm_eps).sqrt()
        t = layer.invocation.link(block.mlp.down(act * gate_up(n).chunk(2, -1)[1]))
        u = (x + t) * layer.norm.weight / ((x + t0).square().mean(-1, keepdim=True) + c.norm_eps).sqrt()
        return mixer(u)

    return trace[f"layers.{depth}.shared.v"], forward
