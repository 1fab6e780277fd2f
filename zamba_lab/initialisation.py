"""Initialisation, chosen by `config.init`, drawn from torch's global generator: `torch.manual_seed` decides it.

Four schemes. They differ in scale, and in a hybrid the scale decides how soon something is learnt through the shared
block: t = link(block) is added to the stream, and where t is much smaller the block's gradient is small too.

    "authors"    the released plain-PyTorch code: linear layers as torch makes them (uniform, +-1/sqrt(fan in)),
                 embedding normal(0.02), A uniform in (1, 16), mixers' out_proj divided by sqrt(n_layers)
    "reference"  transformers' Zamba and Zamba2: every matrix and the embedding normal(0.02), A = 1..heads
    "small"      for hybrids of up to some million parameters: "authors", but the shared block's input and output have
                 the stream's size from the start. The link matrices are normal with standard deviation
                 link_gain / sqrt(d_model). The embedding is normal(1); where it is the head too,
                 normal(1 / sqrt(d_model)), which gives logits of unit size. norm_in begins as ones: a larger weight on
                 the embedding's half made a Zamba1's softmaxes one-hot from the start, and a Zamba2 learn text slower.
    "matching"   "small", and attention begins by matching content: each key matrix is a copy of its query matrix, so a query's
                 score is highest at tokens like its own, and norm_in weighs the embedding's half so that it is not lost beside
                 the stream. Equal keys and queries are one half of mimetic initialisation (Trockman and Kolter 2023, arXiv
                 2305.09828). From independent keys and queries attention begins even; an even mean of the text is nearly the
                 same vector everywhere, and t becomes a constant that the layers behind come to expect
                 (benchmarks/shared_path.py, docs/training.md)

The best link_gain depends on the task. Recall of four pairs (benchmarks/init_recall.py, three seeds) is solved within
800 steps at link_gain 8 and only nearly so at 1; none of the schemes fails there. On text a large one did harm: in
norm(x + t) t was so much larger than the stream x that the mixers' outputs no longer depended on x, and nothing was
learnt through them. So zamba2-nano starts at link_gain 1.

In all of them D = 1, other norms = 1, biases = 0 and dt_bias makes softplus(dt_bias) log-uniform in [0.001, 0.1]. Mamba-1's
A is 1..n in every channel (S4D-real) and its dt_proj uniform +-1/sqrt(rank).
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from zamba_lab.blocks.attention import Attention
from zamba_lab.blocks.layers import HybridLayer
from zamba_lab.blocks.mixer import Mixer
from zamba_lab.config import ZambaConfig

if TYPE_CHECKING:
    from zamba_lab.model import Zamba

DT_RANGE = (1e-3, 1e-1)
DT_FLOOR = 1e-4
# of "matching"
EMBEDDING_GAIN = 1.5  # of the embedding, against "small"
CONCAT_GAIN = 5.0  # of norm_in's weights on the embedding's half: the stream is some five times as large
MATCH_GAIN = 0.8  # of queries and keys: with 64 channels a head a token scores some 2.5 with itself, 0.3 with another


@torch.no_grad()
def initialise(model: "Zamba", config: ZambaConfig) -> None:
    """Fill every parameter of a built model in place. See the module's docstring for the schemes."""
    normal = config.init == "reference"
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02) if normal else _uniform(module.weight, fan_in=module.in_features)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    small = 1 / math.sqrt(config.d_model) if config.tie_embeddings else 1.0
    nn.init.normal_(model.embedding.weight, std=small if config.init in ("small", "matching") else 0.02)
    for layer in model.layers:
        if config.mixer != "attention":
            _initialise_mixer(layer.mamba, config)
        if config.init in ("small", "matching") and isinstance(layer, HybridLayer):
            nn.init.normal_(layer.invocation.link.weight, std=config.link_gain / math.sqrt(config.d_model))
    if config.init == "matching":
        _match(model, config)


def _match(model: "Zamba", config: ZambaConfig) -> None:
    """Queries and keys as one matrix, and an embedding that is read beside the stream."""
    model.embedding.weight.mul_(EMBEDDING_GAIN)
    for block in model.shared_blocks if config.concat_embedding else ():
        block.norm_in.weight[config.d_model :] = CONCAT_GAIN
    for module in model.modules():
        if isinstance(module, Attention):
            module.k.weight.copy_(module.q.weight.mul_(MATCH_GAIN))


def _initialise_mixer(mixer: Mixer, config: ZambaConfig) -> None:
    if mixer.conv_weight is not None:
        if config.init == "reference":
            nn.init.normal_(mixer.conv_weight, std=0.02)
        else:
            _uniform(mixer.conv_weight, fan_in=config.d_conv)
    if mixer.conv_bias is not None:
        nn.init.zeros_(mixer.conv_bias)
    nn.init.ones_(mixer.D)
    mixer.dt_bias.copy_(_inverse_softplus(_log_uniform(mixer.dt_bias)))
    if config.mixer == "mamba1":
        mixer.A_log.copy_(torch.arange(1, config.d_state + 1).log().expand_as(mixer.A_log))
        nn.init.normal_(mixer.x_proj, std=0.02) if config.init == "reference" else _uniform(mixer.x_proj, config.headdim)
        _uniform(mixer.dt_proj, fan_in=config.dt_width)
    elif config.init == "reference":
        mixer.A_log.copy_(torch.arange(1, config.ssm_heads + 1).log())
    else:
        mixer.A_log.copy_(nn.init.uniform_(mixer.A_log, 1, 16).log())
    if config.init != "reference":
        mixer.out_proj.weight.div_(math.sqrt(config.n_layers))


def _uniform(weight: Tensor, fan_in: int) -> None:
    nn.init.uniform_(weight, -1 / math.sqrt(fan_in), 1 / math.sqrt(fan_in))


def _log_uniform(like: Tensor) -> Tensor:
    low, high = (math.log(bound) for bound in DT_RANGE)
    return torch.empty_like(like).uniform_(low, high).exp().clamp(min=DT_FLOOR)


def _inverse_softplus(y: Tensor) -> Tensor:
    """x with log(1 + exp(x)) = y, accurate for small y."""
    return y + torch.log(-torch.expm1(-y))
