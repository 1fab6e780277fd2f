"""A Mamba mixer with its gates frozen: a linear map, and written as attention, the exact matrix from tokens to tokens.

Hold what the mixer computed from its input to steer itself as it was: step sizes, B, C, the gate silu(z), the norm's
statistics, and the slope silu(a) / a = sigmoid(a) after the convolution. What is left of the mixer is linear in its input u:

    x_r   = before_r * ( sum_j taps_j  W_x u_{r-j}  + constants )            the convolution
    y_t   = sum_r M_tr x_r                                                   the SSM, D on the diagonal
    out_t = W_out ( after_t * y_t ) + bias                                   the gate, and in Mamba-2 the norm

    out_t = sum_s T_ts u_s + constants          T_ts = W_out diag(after_t) K_ts W_x,   a (d, d) matrix for each pair
    K_ts  = sum_j M_t,s+j before_{s+j} taps_j                                one number for each pair and channel

M alone is what Dao & Gu 2024 (Mamba-2) and Ali et al. 2024 (Mamba-1) call the mixer's attention; K with convolution and
gate is the implicit attention of Zimerman et al. 2024. T is also the Jacobian of the output with the steering detached.
With padding, r - j and s + j count tokens: the convolution skips padding.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from zamba_lab.blocks.mamba2 import GATED_NORM_EPS
from zamba_lab.blocks.norm import RMSNorm
from zamba_lab.lens.passes import run, token_positions, tokens_first
from zamba_lab.lens.terms import Terms, names_of_inputs, require_index, require_ssm, ssm_rows, terms, widened
from zamba_lab.model import Zamba
from zamba_lab.ops.conv import causal_conv
from zamba_lab.ops.ssd import skip
from zamba_lab.quantization.int8 import AnyMatrix, Quantised
from zamba_lab.trace import Trace


@dataclass(frozen=True, eq=False)
class MixerMatrix:
    """One layer's mixer in one pass, as the factors of its matrix. All float32 or wider."""

    depth: int
    terms: Terms  # of the SSM
    D: Tensor  # (h, 1) or, in Mamba-1, (h, p)
    before: Tensor  # (b, l, h, p)
    after: Tensor  # (b, l, h, p)
    taps: Tensor  # (h, p, w): taps[..., j] weighs the input j tokens back
    constants: Tensor  # (b, l, h, p): what biases add under `before`
    into: Tensor  # (h, p, d): W_x
    out_of: Tensor  # (d, h, p): W_out
    bias: Tensor  # (d,): of W_out
    u: Tensor  # (b, l, d): the mixer's input, after the layer's norm
    out: Tensor  # (b, l, d): the mixer's output, as the pass recorded it
    mask: Tensor | None = None  # (b, l) bool, False at padding

    @cached_property
    def ssm(self) -> Tensor:
        """M, (b, h, p or 1, l, s), 0 where s > l; one for all channels of a head in Mamba-2. Built when first read."""
        return ssm_rows(self.terms, slice(None)) + torch.diag_embed(self.D[..., None].expand(-1, -1, self.u.shape[1]))

    @property
    def rebuilt(self) -> Tensor:
        """The output from these factors alone, (b, l, d)."""
        y = torch.einsum("bhqlr,brhqi->blhqi", self.ssm, self.grouped(self.convolved(self.source())))
        return torch.einsum("blhp,dhp->bld", self.after * y.flatten(-2), self.out_of) + self.bias

    @property
    def error(self) -> float:
        """How far `rebuilt` is from what the pass recorded, padding left out: |rebuilt - out| / |out|."""
        chosen = ... if self.mask is None else self.mask
        return float(torch.linalg.vector_norm((self.rebuilt - self.out)[chosen]) / torch.linalg.vector_norm(self.out[chosen]))

    def apply(self, u: Tensor) -> Tensor:
        """T applied to other inputs, (b, l, d) to (b, l, d), biases left out: by the model's scans, without any l^2 numbers."""
        x = self.before * convolution(self.source(u), self.taps, self.mask)
        y = skip(self.terms.scan(x)[0], x, self.D)
        return torch.einsum("blhp,dhp->bld", self.after * y, self.out_of)

    def source(self, part: Tensor | None = None) -> Tensor:
        """W_x u, (b, l, h, p); of a part of u, (b, l, d), if one is given."""
        return torch.einsum("bld,hpd->blhp", self.u if part is None else part, self.into)

    def convolved(self, source: Tensor) -> Tensor:
        """x, (b, l, h, p), from what the convolution reads."""
        return self.before * (convolution(source, self.taps, self.mask) + self.constants)

    def grouped(self, channels: Tensor) -> Tensor:
        """(..., p) -> (..., q, i): channels that share one matrix of `ssm` side by side."""
        return rearrange(channels, "... (q i) -> ... q i", q=self.D.shape[1])

    def channels(self) -> Tensor:
        """K with gate and norm, after_t K_ts, (b, h, p, l, s): the map of each channel, from W_x to W_out.

        h p l^2 numbers: for a long text or a wide model take `shares`.
        """
        weights = rearrange(self.before[..., None] * self.taps, "b r h p w -> w b h p 1 r")
        total = sum(self.ahead(self.ssm * weight, j) for j, weight in enumerate(weights))
        return total * rearrange(self.after, "b l h p -> b h p l 1")

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
        readout, source = self.readout(toward), rearrange(self.source(part), "b s h p -> b h p s")
        before, total = rearrange(self.before, "b s h p -> b h p s"), source.new_zeros(())
        for j in range(self.taps.shape[-1]):
            x = rearrange(self.ahead(before, j) * self.taps[..., j, None] * source, "b h p s -> b s h p")
            total = total + self._products(readout, x, self.ahead(self.ssm, j))
        return total

    def constant_share(self, toward: Tensor | None = None) -> Tensor:
        """What the biases add to each token's output, all heads: (b, l)."""
        toward = self.along() if toward is None else toward
        return self._products(self.readout(toward), self.before * self.constants, self.ssm).sum((1, 3)) + toward @ self.bias

    def along(self) -> Tensor:
        """out_t / |out_t|^2: the direction in which an output's parts sum to 1."""
        return self.out / self.out.square().sum(-1, keepdim=True)

    def readout(self, toward: Tensor | None = None) -> Tensor:
        """What one unit of each y adds along `toward`, (b, l, h, p)."""
        return self.after * torch.einsum("bld,dhp->blhp", self.along() if toward is None else toward, self.out_of)

    def gradient(self, at: int, toward: Tensor | None = None) -> Tensor:
        """The gradient of <toward, out> of one token by every token's u: T_at,s transposed times toward_at, (b, l, d)."""
        readout = self.grouped(self.readout(toward)[:, at])  # (b, h, q, i)
        weight = torch.einsum("bhqi,bhql->blhqi", readout, self.ssm[..., at, :]).flatten(-2) * self.before
        by_tap = rearrange(weight[..., None] * self.taps, "b l h p w -> w b h p l")
        return torch.einsum("bhpl,hpd->bld", sum(self.ahead(part, j) for j, part in enumerate(by_tap)), self.into)

    def ahead(self, table: Tensor, j: int) -> Tensor:
        """In each column s of a (b, ..., s) table what stands in that of the j-th token after s: from the token that the
        convolution gives to the one that it reads. 0 where there is none."""
        if j == 0:
            return table
        l = self.u.shape[1]
        if self.mask is None:
            return F.pad(table[..., j:], (0, min(j, l)))
        order = tokens_first(self.mask)
        number = token_positions(self.mask) + j
        there = self.mask & (number < self.mask.sum(1, keepdim=True))
        index, there = (
            rearrange(each, "b s -> b " + "1 " * (table.ndim - 2) + "s") for each in (order.gather(1, number.clamp(max=l - 1)), there)
        )
        return table.gather(-1, index.expand_as(table)) * there

    def _products(self, readout: Tensor, x: Tensor, ssm: Tensor) -> Tensor:
        """sum over a head's channels of readout_l M_ls x_s, (b, h, l, s)."""
        return (torch.einsum("blhqi,bshqi->bhqls", self.grouped(readout), self.grouped(x)) * ssm).sum(2)


def convolution(series: Tensor, taps: Tensor, mask: Tensor | None) -> Tensor:
    """Each channel's weighted sum of its latest values. series: (b, l, h, p); taps: (h, p, w), the present one first."""
    flat, weight = rearrange(series, "b l h p -> b l (h p)"), rearrange(taps.flip(-1), "h p w -> (h p) w")
    return causal_conv(flat, weight, None, mask=mask)[0].view(series.shape)


def mixer_matrix(model: Zamba, ids: Tensor, depth: int, mask: Tensor | None = None) -> MixerMatrix:
    """The mixer of one layer as a matrix over the tokens of a text.

    Args:
        ids: (b, l). The matrix has l^2 entries for each head (in Mamba-1, for each channel).
        depth: the layer, 0 <= depth < n_layers.
        mask: (b, l), see `passes`.

    Raises ValueError if there is no such layer, or its mixer is no SSM.
    """
    require_ssm(model)
    require_index("depth", depth, model.config.n_layers)
    return matrix_of(model, run(model, ids, keep=names_for_matrix(depth), mask=mask), depth, mask)


def names_for_matrix(depth: int | str) -> list[str]:
    """The trace points that `matrix_of` reads; "*": of every layer."""
    return names_of_inputs([depth]) + [f"layers.{depth}.mamba.{name}" for name in ("input", "z", "y", "out")]


@torch.no_grad()
def matrix_of(model: Zamba, trace: Trace, depth: int, mask: Tensor | None = None) -> MixerMatrix:
    """`mixer_matrix` from a trace of a pass under `mask` that kept `names_for_matrix(depth)`."""
    mixer, c = model.layers[depth].mamba, model.config
    u, z, y, out = (widened(trace[f"layers.{depth}.mamba.{name}"]) for name in ("input", "z", "y", "out"))
    mask, by_head = None if mask is None else mask.bool(), dict(p=c.headdim)
    gate = F.silu(z)
    if c.mixer == "mamba2":
        gated = rearrange(rearrange(y, "b l h p -> b l (h p)") * gate, "b l (g i) -> b l g i", g=c.gated_norm_groups)
        scale = rsqrt_mean_square(gated, GATED_NORM_EPS).expand_as(gated)
        gate = gate * rearrange(scale, "b l g i -> b l (g i)") * widened(mixer.norm_weight.detach())
    rows = slice(c.d_inner, 2 * c.d_inner) if c.mixer == "mamba2" else slice(0, c.d_inner)
    into, in_bias = weight_and_bias(mixer.in_proj)
    out_of, bias = weight_and_bias(mixer.out_proj)
    taps = widened(mixer.conv_kernel.detach())[: c.d_inner].flip(-1)
    conv_bias = into.new_zeros(c.d_inner) if mixer.conv_bias is None else widened(mixer.conv_bias.detach())[: c.d_inner]
    taps, into = rearrange(taps, "(h p) w -> h p w", **by_head), rearrange(into[rows], "(h p) d -> h p d", **by_head)
    in_bias, conv_bias = (rearrange(part, "(h p) -> 1 1 h p", **by_head) for part in (in_bias[rows], conv_bias))
    constants = convolution(in_bias.expand(*u.shape[:2], -1, -1), taps, mask) + conv_bias
    slope = torch.sigmoid(convolution(torch.einsum("bld,hpd->blhp", u, into), taps, mask) + constants)
    return MixerMatrix(
        depth,
        terms(model, trace, depth),
        widened(mixer.D.detach()).reshape(c.ssm_heads, -1),
        slope,
        rearrange(gate, "b l (h p) -> b l h p", **by_head),
        taps,
        constants,
        into,
        rearrange(out_of, "d (h p) -> d h p", **by_head),
        bias,
        u,
        out,
        mask,
    )


def rsqrt_mean_square(x: Tensor, eps: float) -> Tensor:
    """What RMSNorm multiplies x by, before its weight: (..., d) -> (..., 1)."""
    return torch.rsqrt(x.square().mean(-1, keepdim=True) + eps)


def norm_factor(norm: RMSNorm, x: Tensor) -> Tensor:
    """What an RMSNorm multiplies each entry of its input x by, (b, l, d): weight / rms, the rms of this pass."""
    return widened(norm.weight.detach()) * rsqrt_mean_square(widened(x), norm.eps)


def weight_and_bias(linear: AnyMatrix) -> tuple[Tensor, Tensor]:
    """The matrix (out, in) and bias (out,) of a linear layer or embedding, quantised or not; zeros if it has no bias."""
    weight = linear.matrix(torch.float32) if isinstance(linear, Quantised) else widened(linear.weight.detach())
    bias = getattr(linear, "bias", None)
    return weight, weight.new_zeros(len(weight)) if bias is None else widened(bias.detach())
