"""Models whose memory of a needle is known, because it was put there by hand.

The stream has three stretches, one number for each word: the token itself, the one before it, and the answer, which the head
reads. Both models give the word that followed the last time this one came; one keeps it in a state, one in keys and values.
"""

import torch

import zamba_lab as zl

V = 29  # words
TOKEN, BEFORE, ANSWER = (slice(i * V, (i + 1) * V) for i in range(3))
X, GATE = (slice(start, start + 3 * V) for start in (3 * V, 0))  # columns of the mixer's projection, B and C after them
B, C = slice(6 * V, 7 * V), slice(7 * V, 8 * V)
# fmt: off
CONFIG = zl.ZambaConfig(
    vocab_size=V, d_model=3 * V, n_layers=2, d_state=V, d_conv=2, expand=1, headdim=3 * V, n_shared_blocks=1, hybrid_layers=(1,),
    attn_heads=1, attn_head_dim=V, rope_theta=None, d_mlp=V, lora_rank=0, tie_embeddings=False,
)
# fmt: on
ONE = torch.eye(V, dtype=torch.float64)


def bare() -> zl.Zamba:
    """Every matrix a little noise, but for embeddings, head and the ways that both models have in common."""
    generator = torch.Generator().manual_seed(0)
    model = zl.Zamba(CONFIG).double()
    for p in model.parameters():
        p.data.copy_(1e-3 * torch.randn(p.shape, generator=generator, dtype=p.dtype) if p.ndim > 1 else torch.zeros_like(p))
    for name, p in model.named_parameters():
        if "norm" in name:
            p.data.fill_(1.0)
    model.embedding.weight.data[:, TOKEN] += ONE
    model.head.weight.data[:, ANSWER] += 2 * ONE
    for layer in model.layers:
        layer.mamba.A_log.data.fill_(-6.0)  # a state hardly fades
        layer.mamba.in_proj.weight.data[GATE, TOKEN] += 1.0  # and every gate is open
    return model


def reads_from(mamba, stretch: slice, of: slice, before: bool) -> None:
    """A stretch of what the convolution hands on is one of the stream, of this token or of the one before."""
    channels = slice(stretch.start - X.start, stretch.stop - X.start)
    mamba.in_proj.weight.data[stretch, of] += ONE
    mamba.conv_weight.data[channels] = torch.tensor([1.0, 0.0] if before else [0.0, 1.0]).double()


def says(mamba, stretch: slice, loud: float = 1.0) -> None:
    mamba.out_proj.weight.data[stretch, stretch] += loud * ONE


def within(stretch: slice) -> slice:
    return slice(X.start + stretch.start, X.start + stretch.stop)


def remembers_by_state() -> zl.Zamba:
    """Layer 0 writes each token under the one before it, and reads with the token itself."""
    model = bare()
    mamba = model.layers[0].mamba
    reads_from(mamba, within(ANSWER), TOKEN, before=False)
    reads_from(mamba, B, TOKEN, before=True)
    reads_from(mamba, C, TOKEN, before=False)
    says(mamba, ANSWER)
    return model


def remembers_by_attention() -> zl.Zamba:
    """Layer 0 notes the token before; layer 1's block looks for places after this token, and hands on what stands there."""
    model = bare()
    first, second, block = model.layers[0].mamba, model.layers[1].mamba, model.shared_blocks[0]
    reads_from(first, within(BEFORE), TOKEN, before=True)
    first.D.data.fill_(1.0)
    says(first, BEFORE, loud=0.1)  # the norms after it are to be as without it
    x0 = slice(3 * V, 4 * V)  # the embeddings' stretch of [x, x0]
    block.attention.q.weight.data[:, x0] += 3 * ONE
    block.attention.k.weight.data[:, BEFORE] += ONE
    block.attention.v.weight.data[:, x0] += ONE
    block.attention.o.weight.data[ANSWER] += ONE
    block.mlp.gate_up.weight.data[:, ANSWER] += torch.cat([ONE, ONE])
    block.mlp.down.weight.data[ANSWER] += ONE
    model.layers[1].invocation.link.weight.data[ANSWER, ANSWER] += ONE
    reads_from(second, within(ANSWER), ANSWER, before=False)
    second.D.data.fill_(1.0)
    says(second, ANSWER)
    return model
