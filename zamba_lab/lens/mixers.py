"""A Mamba mixer written as attention: the exact matrix from tokens to tokens that it applied in one pass.

Hold what the mixer computed from its input to steer itself as it was: step sizes, B, C, the gate silu(z), the norm's
statistics, and the slope silu(a) / a = sigmoid(a) after the convolution. What is left of the mixer is linear in its input u:

    x_r   = before_r * ( sum_j taps_j  W_x u_{r-j}  + constants )            the convolution
    y_t   = sum_r M_tr x_r                                                   the SSM, D on the diagonal
    out_t = W_out ( after_t * y_t ) + bias                                   the gate, and in Mamba-2 the norm

    out_t = sum_s T_ts u_s + constants          T_ts = W_out diag(after_t) K_ts W_x,   a (d, d) matrix for each pair
    K_ts  = sum_j M_t,s+j before_{s+j} taps_j                                one number for each pair and channel

M alone is what Dao & Gu 2024 (Mamba-2) and Ali et al. 2024 (Mamba-1) call the mixer's attention; K with convolution and
gate is the implicit attention of Zimerman et al. 2024. T is also the Jacobian of the output with the steering detached.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from zamba_lab.blocks.linear import Int8Linear
from zamba_lab.blocks.mamba2 import GATED_NORM_EPS
from zamba_lab.blocks.mixer import taps as conv_taps
from zamba_lab.lens.passes import run
from zamba_lab.lens.terms import names_of_inputs, require_index, require_ssm, ssm_rows, terms, widened
from zamba_lab.model import Zamba
from zamba_lab.ops.linear import dequantised
from zamba_lab.trace import Trace


@dataclass(frozen=True)
class MixerMatrix:
    """One layer's mixer in one pass, as the factors of its matrix. All float32 or wider."""

    depth: int
    ssm: Tensor  # (b, h, p or 1, l, s): M, 0 where s > l; one for all channels of a head in Mamba-2
    before: Tensor  # (b, l, h, p)
    after: Tensor  # (b, l, h, p)
    taps: Tensor  # (h, p, w): taps[..., j] weighs the input j tokens back
    constants: Tensor  # (l, h, p): what biases add under `before`
    into: Tensor  # (h, p, d): W_x
    out_of: Tensor  # (d, h, p): W_out
    bias: Tensor  # (d,): of W_out
    u: Tensor  # (b, l, d): the mixer's input, after the layer's norm
    out: Tensor  # (b, l, d): the mixer's output, as the pass recorded it

    @property
    def rebuilt(self) -> Tensor:
        """The output from these factors alone, (b, l, d)."""
        y = torch.einsum("bhqlr,brhqi->blhqi", self.ssm, self.grouped(self.convolved(self.source())))
        return torch.einsum("blhp,dhp->bld", self.after * y.flatten(-2), self.out_of) + self.bias

    @property
    def error(self) -> float:
        """How far `rebuilt` is from what the pass recorded: |rebuilt - out| / |out|."""
        return float(torch.linalg.vector_norm(self.rebuilt - self.out) / torch.linalg.vector_norm(self.out))

    def source(self, part: Tensor | None = None) -> Tensor:
        """W_x u, (b, l, h, p); of a part of u, (b, l, d), if one is given."""
        return torch.einsum("bld,hpd->blhp", self.u if part is None else part, self.into)

    def convolved(self, source: Tensor) -> Tensor:
        """x, (b, l, h, p), from what the convolution reads."""
        return self.before * (convolution(source, self.taps) + self.constants)

    def grouped(self, channels: Tensor) -> Tensor:
        """(..., p) -> (..., q, i): channels that share one matrix of `ssm` side by side."""
        return rearrange(channels, "... (q i) -> ... q i", q=self.ssm.shape[2])

    def channels(self) -> Tensor:
        """K with gate and norm, after_t K_ts, (b, h, p, l, s): the whole map of each channel, from W_x to W_out.

        h p l^2 numbers: for a long text or a wide model take `shares`.
        """
        weights = rearrange(self.before[..., None] * self.taps, "b r h p w -> w b h p 1 r")
        total = self.ssm * weights[0]
        for j in range(1, len(weights)):
            later = self.ssm[..., j:]
            total[..., : later.shape[-1]].addcmul_(later, weights[j][..., j:])  # column r comes from token r - j
        return total.mul_(rearrange(self.after, "b l h p -> b h p l 1"))

    def jacobian(self) -> Tensor:
        """T as one tensor, (b, l, d, s, d): how out_l, third axis, answers to u_s, last axis. (d l)^2 numbers."""
        return torch.einsum("ohp,bhpls,hpd->blosd", self.out_of, self.channels(), self.into)

    def shares(self, toward: Tensor | None = None, part: Tensor | None = None) -> Tensor:
        """What each token adds to each token's output, by head: <toward_t, T_ts u_s>, (b, h, l, s), 0 where s > l.

        Args:
            toward: (b, l, d), a direction for each output. None: out_t / |out_t|^2, and all shares of a token, with
                `constant_share`, sum to 1. Any other: they sum to <toward_t, out_t>.
            part: (b, l, d), a part of the mixer's input instead of all of it: shares of parts add up.
        """
        heard, source = self.heard(toward), self.source(part)
        total = self.read(heard, self.before * self.taps[..., 0] * source)
        for j in range(1, min(self.taps.shape[-1], source.shape[1])):
            total[..., :-j] += self.read(heard, self.before[:, j:] * self.taps[..., j] * source[:, :-j], later=j)
        return total

    def constant_share(self, toward: Tensor | None = None) -> Tensor:
        """What the biases add to each token's output, all heads: (b, l)."""
        toward = self.along() if toward is None else toward
        return self.read(self.heard(toward), self.before * self.constants).sum((1, 3)) + toward @ self.bias

    def along(self) -> Tensor:
        """out_t / |out_t|^2: the direction in which an output's parts sum to 1."""
        return self.out / self.out.square().sum(-1, keepdim=True)

    def heard(self, toward: Tensor | None = None) -> Tensor:
        """What one unit of each y adds along `toward`, (b, l, h, p)."""
        return self.after * torch.einsum("bld,dhp->blhp", self.along() if toward is None else toward, self.out_of)

    def listening(self, at: int, toward: Tensor | None = None) -> Tensor:
        """How <toward, out> of one token answers to every token's u: T_at,s transposed times toward_at, (b, l, d)."""
        heard = self.grouped(self.heard(toward)[:, at])  # (b, h, q, i)
        coefficient = torch.einsum("bhqi,bhql->blhqi", heard, self.ssm[..., at, :]).flatten(-2) * self.before
        taken = (rearrange(coefficient * self.taps[..., j], "b l h p -> b h p l") for j in range(self.taps.shape[-1]))
        total = sum(advanced(part, j) for j, part in enumerate(taken))
        return torch.einsum("bhpl,hpd->bld", total, self.into)

    def read(self, heard: Tensor, x: Tensor, later: int = 0) -> Tensor:
        """sum over a head's channels of heard_l M_l,s+later x_s, (b, h, l, s)."""
        products = torch.einsum("blhqi,bshqi->bhqls", self.grouped(heard), self.grouped(x))
        return products.mul_(self.ssm[..., later:]).sum(2)


def convolution(series: Tensor, taps: Tensor) -> Tensor:
    """Each channel's weighted sum of its latest values. series: (b, l, h, p); taps: (h, p, w), the present one first."""
    return sum(taps[..., j] * delayed(series, j) for j in range(taps.shape[-1]))


def delayed(series: Tensor, j: int) -> Tensor:
    """series_{t-j} at t, 0 before the start. (b, l, h, p)"""
    l = series.shape[1]
    return F.pad(series[:, : max(0, l - j)], (0, 0, 0, 0, min(j, l), 0))


def advanced(table: Tensor, j: int) -> Tensor:
    """What stands in column r goes to column r - j: from the token that was convolved to the one it came from. (..., l, s)"""
    return F.pad(table[..., j:], (0, min(j, table.shape[-1])))


def mixer_matrix(model: Zamba, ids: Tensor, depth: int) -> MixerMatrix:
    """The mixer of one layer as a matrix over the tokens of a text.

    Args:
        ids: (b, l). The matrix has l^2 entries for each head (in Mamba-1, for each channel).
        depth: the layer, 0 <= depth < n_layers.

    Raises ValueError if there is no such layer, or its mixer is no SSM.
    """
    require_ssm(model)
    require_index("depth", depth, model.config.n_layers)
    return matrix_of(model, run(model, ids, keep=names_for_matrix(depth)), depth)


def names_for_matrix(depth: int | str) -> list[str]:
    """The trace points that `matrix_of` reads."""
    return names_of_inputs([depth]) + [f"layers.{depth}.mamba.{name}" for name in ("input", "z", "y", "out")]


@torch.no_grad()
def matrix_of(model: Zamba, trace: Trace, depth: int) -> MixerMatrix:
    """`mixer_matrix` from a trace that kept `names_for_matrix(depth)`."""
    mixer, c = model.layers[depth].mamba, model.config
    u, z, out = (widened(trace[f"layers.{depth}.mamba.{name}"]) for name in ("input", "z", "out"))
    found = terms(model, trace, depth)
    gate = rearrange(F.silu(z), "b l (h p) -> b l h p", p=c.headdim)
    if c.mixer == "mamba2":
        gate = gate * norm_factor(widened(trace[f"layers.{depth}.mamba.y"]) * gate, mixer.norm_weight, c.gated_norm_groups)
    rows = slice(c.d_inner, 2 * c.d_inner) if c.mixer == "mamba2" else slice(0, c.d_inner)
    into, in_bias = weight_and_bias(mixer.in_proj)
    out_of, bias = weight_and_bias(mixer.out_proj)
    heads = dict(p=c.headdim)
    taps = rearrange(widened(conv_taps(mixer).detach())[: c.d_inner].flip(-1), "(h p) w -> h p w", **heads)
    conv_bias = into.new_zeros(c.d_inner) if mixer.conv_bias is None else widened(mixer.conv_bias.detach())[: c.d_inner]
    into = rearrange(into[rows], "(h p) d -> h p d", **heads)
    in_bias, conv_bias = (rearrange(part, "(h p) -> 1 1 h p", **heads) for part in (in_bias[rows], conv_bias))
    constants = convolution(in_bias.expand(1, u.shape[1], -1, -1), taps) + conv_bias
    slope = torch.sigmoid(convolution(torch.einsum("bld,hpd->blhp", u, into), taps) + constants)
    return MixerMatrix(
        depth,
        with_skip(ssm_rows(found, slice(None)), mixer.D),
        slope,
        gate,
        taps,
        constants[0],
        into,
        rearrange(out_of, "d (h p) -> d h p", **heads),
        bias,
        u,
        out,
    )


def with_skip(ssm: Tensor, D: Tensor) -> Tensor:
    """D on the diagonal. ssm: (b, h, p or 1, l, s). D: (h,) or, in Mamba-1, (h, p)."""
    D = widened(D.detach()).reshape(*ssm.shape[1:3], 1)
    return ssm + torch.diag_embed(D.expand(-1, -1, ssm.shape[-1]))


def norm_factor(gated: Tensor, weight: Tensor, groups: int) -> Tensor:
    """What the mixer's norm multiplies each channel of y * silu(z) with, (b, l, h, p): its statistics are of this pass."""
    flat = rearrange(gated, "b l (g i) p -> b l g (i p)", g=groups)
    factor = torch.rsqrt(flat.square().mean(-1, keepdim=True) + GATED_NORM_EPS) * rearrange(
        widened(weight.detach()), "(g i) -> g i", g=groups
    )
    return factor.reshape(gated.shape)


def weight_and_bias(linear: nn.Module) -> tuple[Tensor, Tensor]:
    """A linear layer's matrix (out, in) and bias (out,), zeros if it has none, of whole or int8 weights."""
    weight = dequantised(linear.values, linear.scale, torch.float32) if isinstance(linear, Int8Linear) else widened(linear.weight.detach())
    return weight, weight.new_zeros(len(weight)) if linear.bias is None else widened(linear.bias.detach())
