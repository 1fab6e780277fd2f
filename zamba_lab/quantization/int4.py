"""Matrices of 4-bit weights with a scale and an offset for each group of a row, multiplied by torch's packed kernel.

    w = scale * (q - 8) + offset,   q in 0..15,  scale and offset bfloat16

torch packs q in an order that depends on the processor. `places` finds that order by packing numbers that say where they came from,
so that packed weights can be read on any device and need not be held a second time.
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from zamba_lab.accounting import PACKED_ROWS
from zamba_lab.quantization.int8 import Quantised

MOST_ROWS = 32  # with more, writing the matrix out and one product of torch's is faster
OFFSET = 8  # what the kernel subtracts


def rounded(weight: Tensor, group: int) -> tuple[Tensor, Tensor]:
    """The nearest 4-bit weights: q (out, in), uint8, and the scale and offset of each group, (in / group, out, 2), bfloat16.

    A group's least weight becomes 0, its greatest 15: none moves by more than half a scale, but for bfloat16's rounding of the two.
    """
    grouped = weight.detach().float().unflatten(1, (-1, group))  # (out, in / group, group)
    low, high = grouped.aminmax(dim=2)
    scale = ((high - low) / 15).clamp(min=1e-8).bfloat16()
    offset = (low + OFFSET * scale.float()).bfloat16()
    q = (grouped - offset.float()[..., None]) / scale.float()[..., None] + OFFSET
    return q.round().clamp(0, 15).to(torch.uint8).flatten(1), torch.stack([scale.T, offset.T], dim=2).contiguous()


def why_not_packed(x: Tensor) -> str | None:
    """Why torch's packed kernel cannot multiply x; None if it can."""
    if x.device.type != "cpu":
        return f"the packed int4 matrices are the CPU's: on {x.device.type} each is written out before its product"
    if x.dtype != torch.bfloat16:
        return f"torch's int4 kernel is fast in bfloat16 only: for {x.dtype} each matrix is written out. Convert with model.bfloat16()"
    if torch.is_grad_enabled() and x.requires_grad:
        return "torch's int4 kernel has no gradient: each matrix is written out"
    return None


class Int4Matrix(Quantised):
    """The matrix as buffers: nothing to train. Moving the module to another dtype changes its results' type, not what it holds."""

    packed: Tensor  # (PACKED_ROWS k, in / 2), bytes
    scale_bits: Tensor  # (in / group, PACKED_ROWS k, 2), the bits of bfloat16, which module.to(dtype) leaves alone

    def __init__(self, weight: Tensor, group: int):
        super().__init__()
        (self.out, self.width), self.group = weight.shape, group
        if weight.is_meta:
            rows = -(-self.out // PACKED_ROWS) * PACKED_ROWS
            packed = weight.new_empty(rows, self.width // 2, dtype=torch.uint8)
            scales = weight.new_empty(self.width // group, rows, 2, dtype=torch.int16)
        else:
            q, scales = rounded(weight, group)
            packed, scales = pack(q), F.pad(scales, (0, 0, 0, -self.out % PACKED_ROWS)).view(torch.int16)
        self.register_buffer("packed", packed)
        self.register_buffer("scale_bits", scales)

    def q(self) -> Tensor:
        """The 4-bit numbers, (out, in) uint8."""
        return unpack(self.packed)[: self.out]

    def matrix(self, dtype: torch.dtype) -> Tensor:
        return self.floats(self.q(), slice(self.out), dtype)

    def floats(self, q: Tensor, rows, dtype: torch.dtype) -> Tensor:
        """What 4-bit numbers of some rows, (..., in), stand for. rows: an index of the out axis."""
        scale, offset = self.scale_bits.view(torch.bfloat16)[:, rows].float().movedim(0, -2).unbind(-1)  # (..., in / group)
        grouped = q.float().unflatten(-1, (-1, self.group)) - OFFSET
        return (grouped * scale[..., None] + offset[..., None]).flatten(-2).to(dtype)

    def product(self, x: Tensor) -> Tensor:
        """x W^T. x: (..., in)."""
        flat = x.reshape(-1, self.width)
        if len(flat) > MOST_ROWS or why_not_packed(x) is not None:
            return F.linear(x, self.matrix(x.dtype))
        scales = self.scale_bits.view(torch.bfloat16)
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(flat.contiguous(), self.packed, self.group, scales)
        return y[:, : self.out].reshape(*x.shape[:-1], self.out)


class Int4Linear(Int4Matrix):
    """y = x W^T + bias."""

    def __init__(self, weight: Tensor, bias: Tensor | None, group: int):
        super().__init__(weight, group)
        self.bias = bias

    def forward(self, x: Tensor) -> Tensor:
        y = self.product(x)
        return y if self.bias is None else y + self.bias


class Int4Embedding(Int4Matrix):
    """Token embeddings of 4 bits: a row is unpacked when it is looked up."""

    like: Tensor  # of the dtype of the results

    def __init__(self, weight: Tensor, group: int):
        super().__init__(weight, group)
        self.register_buffer("like", weight.detach().new_empty(0))

    def forward(self, ids: Tensor) -> Tensor:
        flat = ids.reshape(-1)
        where = places(self.width).to(ids.device)[flat % PACKED_ROWS]  # (t, in)
        blocks = self.packed.view(-1, PACKED_ROWS * self.width // 2)[flat // PACKED_ROWS]
        q = blocks.gather(1, where // 2) >> (4 * (where % 2)).to(torch.uint8) & 15
        return self.floats(q, flat, self.like.dtype).reshape(*ids.shape, self.width)

    def logits(self, x: Tensor) -> Tensor:
        return self.product(x)


def pack(q: Tensor) -> Tensor:
    """Bytes for torch's kernel on this processor, (PACKED_ROWS k, in / 2), of q, (out, in) uint8, padded to whole PACKED_ROWS."""
    q = F.pad(q, (0, 0, 0, -len(q) % PACKED_ROWS))
    return torch.ops.aten._convert_weight_to_int4pack_for_cpu(q.to(device="cpu", dtype=torch.int32), 1).to(q.device)


def unpack(packed: Tensor) -> Tensor:
    """The inverse of `pack`: (rows, in) uint8."""
    blocks, width = packed.view(-1, PACKED_ROWS * packed.shape[1]), 2 * packed.shape[1]
    nibbles = torch.stack([blocks & 15, blocks >> 4], dim=2).flatten(1)
    return nibbles[:, places(width).to(packed.device).flatten()].view(-1, width)


@cache
def places(width: int) -> Tensor:
    """(PACKED_ROWS, width): where torch puts each number of so many rows, counted in 4-bit numbers from their start."""
    count = PACKED_ROWS * width
    number, came_from, digit = torch.arange(count).view(PACKED_ROWS, width), torch.zeros(count, dtype=torch.int64), 0
    while 16**digit < count:  # the numbers 0..count - 1 are packed digit by digit, in base 16
        one = pack((number >> (4 * digit) & 15).to(torch.uint8)).flatten()
        came_from |= torch.stack([one & 15, one >> 4], dim=1).flatten().long() << (4 * digit)
        digit += 1
    return came_from.argsort().view(PACKED_ROWS, width)
