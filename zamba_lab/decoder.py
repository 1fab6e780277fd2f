"""Fast decoding on a CPU: every native call of one token is listed once, and each token makes them all in one call.

A small model's token is less work than the Python around it, so here Python builds the list and is gone. `model.extend`
computes the same, to rounding, in the layers' own `forward`; the list is those of `blocks/` and `model.py` written as calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as every_module

from zamba_lab import native
from zamba_lab.blocks import layers
from zamba_lab.blocks.attention import Attention
from zamba_lab.blocks.linear import Embedding, Linear
from zamba_lab.blocks.lora import Adapters, Lora
from zamba_lab.blocks.mamba1 import Mamba1
from zamba_lab.blocks.mamba2 import GATED_NORM_EPS, Mamba2
from zamba_lab.blocks.mlp import GatedMLP
from zamba_lab.blocks.norm import RMSNorm
from zamba_lab.blocks.shared import Invocation, SharedBlock, stream_and_embedding
from zamba_lab.cache import Cache, LayerCache
from zamba_lab.native.program import Program
from zamba_lab.ops.gate import ACTIVATION
from zamba_lab.quantization.int8 import Int8Embedding, Int8Linear, Int8Matrix

if TYPE_CHECKING:
    from zamba_lab.model import Zamba

SUFFIX = {torch.float32: "_f32", torch.bfloat16: "_bf16"}  # stored types; sums and states are float32
MOST_ROWS = 8  # with more, torch's forms for many rows are as good
ROOM = 1024  # positions that keys and values have room for before they are moved
KNOWN = {
    *(nn.ModuleList, nn.ModuleDict, Linear, Embedding, Int8Linear, Int8Embedding, RMSNorm, Mamba1, Mamba2, Attention, GatedMLP, Lora),
    *(layers.MambaLayer, layers.HybridLayer, layers.StreamHybridLayer, layers.TransformerLayer, SharedBlock, Invocation),
}
Matrix = Linear | Embedding | Int8Matrix
State = dict[str, Tensor]  # what a layer carries, by its name in `LayerCache`


def serves(model: Zamba, batch: int) -> bool:
    """Whether `Decoder` can decode this model now: all its modules are this package's own, unchanged and without hooks, its tensors
    lie on the CPU in float32 or bfloat16 (or int8), and native forms may be used. Not for more than MOST_ROWS rows, nor for a gated
    norm whose groups are not those of B and C.
    """
    dtype, modules = model.final_norm.weight.dtype, list(model.modules())
    tensors = [*model.parameters(), *model.buffers()]
    return (
        dtype in SUFFIX
        and batch <= MOST_ROWS
        and model.config.norm_groups is None
        and all(type(module) in KNOWN for module in modules[1:])
        and not any(hooks for module in (*modules, every_module) for name, hooks in vars(module).items() if name.endswith("_hooks"))
        and all(not hasattr(type(module), name) for module in modules for name in vars(module))  # a method is replaced
        and all(type(t) in (Tensor, nn.Parameter) and t.is_cpu for t in tensors)
        and all(part.weight.dtype == dtype for part in modules if isinstance(part, Linear | Embedding))
        and native.find("linear", torch.empty(batch, 1, dtype=dtype), torch.empty(1, 1, dtype=dtype), None) is not None
    )


class Decoder:
    """Decodes one batch with one model, from a cache on, a token at a time: for `generate`, made for it and thrown away after it.

        decoder = Decoder(model, cache)
        logits = decoder.step(tokens)        # (b,) -> (b, v); the next step writes over them

    The model must be one that `serves` accepts, and must not be changed while it decodes: its weights are read where they lie, or
    were. The cache stays as it was; what the decoder carries is its own.
    """

    def __init__(self, model: Zamba, cache: Cache):
        if len(cache.layers) != len(model.layers) or not all(t.is_cpu for layer in cache.layers for t in layer.tensors().values()):
            raise ValueError(
                f"a decoder goes on from a cache of its model, on the CPU: got {len(cache.layers)} layers, model {len(model.layers)}"
            )
        self.model, self.batch, self.dtype = model, cache.batch, model.final_norm.weight.dtype
        self.length, self.room, self.carried = cache.length, 0, [self._own(layer) for layer in cache.layers]
        real = cache.length if cache.mask is None else cache.mask.sum(1, keepdim=True)
        self.position = torch.as_tensor(real).reshape(-1, 1)  # of the next token, among each row's real ones
        self.visible = None if cache.mask is None else cache.mask[:, None, None]
        self._build()

    def step(self, tokens: Tensor) -> Tensor:
        """Append a token to each row. tokens: (b,). Returns the logits of what follows, (b, v)."""
        if self.length == self.room:
            self._build()
        self.x0.copy_(self.model.embedding(tokens))
        if self.tables:
            for table, out in zip(self.tables, self.rotary):
                torch.index_select(table, 0, self.position.view(-1), out=out)
            self.position += 1
        self.length += 1
        self.program.set(self.lengths, self.length)
        self.program.run()
        return self.logits

    def _own(self, layer: LayerCache) -> State:
        """A layer's tensors, copied: the decoder writes over its states."""
        wide = {"ssm": torch.float32}
        return {name: t.to(wide.get(name, self.dtype)).clone(memory_format=torch.contiguous_format) for name, t in layer.tensors().items()}

    def _build(self) -> None:
        """List the calls of a token, with room for ROOM more keys and values, or a quarter more of many."""
        model, c = self.model, self.model.config
        self.room = self.length + max(ROOM, self.length // 4)
        if self.visible is not None:
            self.visible = torch.cat(
                [self.visible[..., : self.length], self.visible.new_ones(self.batch, 1, 1, self.room - self.length)], -1
            )
        for part in self.carried:
            for name in {"k", "v"} & part.keys():
                longer = part[name].new_empty(self.batch, c.kv_heads, self.room, c.head_dim)
                longer[:, :, : self.length] = part[name][:, :, : self.length]
                part[name] = longer
        angles = model.rotary(torch.arange(self.room)[None], self.dtype)
        self.tables = [] if angles is None else [table[0, 0] for table in angles]
        self.rotary = [] if angles is None else [torch.empty(len(self.position), c.head_dim // 2, dtype=self.dtype) for _ in angles]
        calls = Calls(self)
        self.x0 = x = calls.new(c.d_model)
        for layer, block, part in zip(model.layers, model.blocks_by_depth(), self.carried):
            x = calls.layer(layer, block, x, self.x0, part)
        x = calls.norm(model.final_norm, x)
        self.logits = calls.linear(model.embedding if model.head is None else model.head, x)
        self.program, self.lengths = calls.program, np.array(calls.lengths, np.int64)


class Calls:
    """The program of one token: each method lists the calls of one part of the model, and returns the buffer of its result, (b, width)."""

    def __init__(self, decoder: Decoder):
        self.decoder, self.batch, self.dtype = decoder, decoder.batch, decoder.dtype
        self.suffix, self.program = SUFFIX[self.dtype], Program()
        self.lengths: list[int] = []  # the words that hold the number of positions

    def new(self, width: int) -> Tensor:
        return torch.empty(self.batch, width, dtype=self.dtype)

    def add(self, name: str, *arguments: int | float | Tensor | None) -> int:
        return self.program.add(name, self.suffix, *arguments)

    def stored(self, t: Tensor | None, dtype: torch.dtype | None = None) -> Tensor | None:
        return None if t is None else t.detach().to(dtype or self.dtype).contiguous()

    def layer(self, layer: layers.Layer, block: SharedBlock | None, x: Tensor, x0: Tensor, carried: State) -> Tensor:
        """One depth: x + mixer(norm(x)), with an invocation before it, or a transformer layer."""
        if isinstance(layer, layers.TransformerLayer):
            x = self.attention(layer.attention, self.norm(layer.norm_in, x), {}, carried, plus=x)
            return self.mlp(layer.mlp, self.norm(layer.norm_mid, x), {}, plus=x)
        u = x
        if block is not None:
            u = self.plus(x, self.invocation(layer.invocation, block, x, x0, carried))
            x = u if isinstance(layer, layers.StreamHybridLayer) else x
        mixer, projected = layer.mamba, self.linear(layer.mamba.in_proj, self.norm(layer.norm, u))
        y = self.mamba1(mixer, projected, carried) if isinstance(mixer, Mamba1) else self.mamba2(mixer, projected, carried)
        return self.linear(mixer.out_proj, y, plus=x)

    def invocation(self, invocation: Invocation, block: SharedBlock, x: Tensor, x0: Tensor, carried: State) -> Tensor:
        u = self.concat(x, x0) if block.block_input is stream_and_embedding else x
        a = self.attention(block.attention, self.norm(block.norm_in, u), invocation.adapters, carried)
        return self.linear(invocation.link, self.mlp(block.mlp, self.norm(block.norm_mid, a), invocation.adapters))

    def norm(self, module: RMSNorm, x: Tensor) -> Tensor:
        self.add("norm_step", self.batch, x.shape[1], float(module.eps), x, self.stored(module.weight), y := torch.empty_like(x))
        return y

    def plus(self, a: Tensor, b: Tensor) -> Tensor:
        self.add("plus_step", a.numel(), a, b, y := torch.empty_like(a))
        return y

    def concat(self, a: Tensor, b: Tensor) -> Tensor:
        self.add("join_step", self.batch, a.shape[1], b.shape[1], a, b, y := self.new(a.shape[1] + b.shape[1]))
        return y

    def linear(self, module: Matrix, x: Tensor, plus: Tensor | None = None) -> Tensor:
        """y = x W^T + bias, then + plus."""
        if isinstance(module, Int8Matrix):
            weight, scale, suffix = module.values, module.scale, "_int8"
        else:
            weight, scale, suffix = module.weight.detach(), None, self.suffix
        bias, half = self.stored(getattr(module, "bias", None)), int(self.dtype == torch.bfloat16)
        (out, width), y = weight.shape, self.new(len(weight))
        self.program.add("gemv", suffix, self.batch, out, width, half, x, weight.contiguous(), scale, bias, plus, y)
        return y

    def adapted(self, module: Matrix, adapters: Adapters, name: str, x: Tensor) -> Tensor:
        y = self.linear(module, x)
        return self.linear(adapters[name].up, self.linear(adapters[name].down, x), plus=y) if name in adapters else y

    def mlp(self, module: GatedMLP, x: Tensor, adapters: Adapters, plus: Tensor | None = None) -> Tensor:
        both = self.adapted(module.gate_up, adapters, "mlp", x)
        y, kind = self.new(both.shape[1] // 2), list(ACTIVATION).index(module.activation)
        self.add("gate_forward", self.batch, y.shape[1], kind, both, y)
        return self.linear(module.down, y, plus)

    def attention(self, module: Attention, u: Tensor, adapters: Adapters, carried: State, plus: Tensor | None = None) -> Tensor:
        c, decoder = module.config, self.decoder
        q, k, v = (self.adapted(getattr(module, name), adapters, name, u) for name in ("q", "k", "v"))
        cosine, sine = decoder.rotary or (None, None)
        apart = c.head_dim // 2 if cosine is not None and len(cosine) > 1 else 0
        sizes = self.batch, c.attn_heads, c.kv_heads, c.head_dim, decoder.length, decoder.room, float(c.attn_scale)
        y = torch.empty_like(q)
        past = carried["k"], carried["v"], decoder.visible, decoder.room
        at = self.add("attend_step", *sizes, q, k, v, cosine, sine, apart, *past, y)
        self.lengths.append(at + 4)
        return self.linear(module.o, y, plus)

    def mamba2(self, m: Mamba2, projected: Tensor, carried: State) -> Tensor:
        """The mixer between its projections. projected: (b, e + (e + 2gn) + h)."""
        c, y, (wide, dt_bias, A_log, D) = m.config, self.new(m.config.d_inner), self.rates(m)
        sizes = self.batch, c.ssm_heads, c.headdim, c.n_groups, c.d_state, c.conv_state + 1, float(c.dt_min), GATED_NORM_EPS, wide
        convolution = self.stored(m.conv_kernel), self.stored(m.conv_bias), carried["conv"]
        gated = dt_bias, A_log, D, self.stored(m.norm_weight), carried["ssm"]
        self.add("mamba2_step", *sizes, projected, *convolution, *gated, y, carried["conv"], carried["ssm"])
        return y

    def mamba1(self, m: Mamba1, projected: Tensor, carried: State) -> Tensor:
        """The mixer between its projections. projected: (b, 2e)."""
        c, y, (wide, dt_bias, A_log, D) = m.config, self.new(m.config.d_inner), self.rates(m)
        sizes = self.batch, c.ssm_heads, c.headdim, c.d_state, c.dt_width, c.conv_state + 1, float(c.dt_min), wide
        convolution = self.stored(m.conv_kernel), self.stored(m.conv_bias), carried["conv"]
        scan = self.stored(m.x_proj), self.stored(m.dt_proj), dt_bias, A_log, D, carried["ssm"]
        self.add("mamba1_step", *sizes, projected, *convolution, *scan, y, carried["conv"], carried["ssm"])
        return y

    def rates(self, m: Mamba1 | Mamba2) -> tuple[int, *tuple[Tensor | None, ...]]:
        """Whether the SSM's own parameters are read as float32 rather than as the model's dtype, and they."""
        rates = m.dt_bias, m.A_log, m.D
        wide = any(t.dtype != self.dtype for t in rates)
        return int(wide), *(self.stored(t, torch.float32 if wide else None) for t in rates)
