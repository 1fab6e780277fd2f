"""Smaller weights for inference: int8 with a scale for each row."""

from torch import nn

from zamba_lab.blocks.linear import Embedding, Linear


def quantize(model: nn.Module, kind: str = "int8", embeddings: bool = True) -> nn.Module:
    """Round the weight matrices of a model to int8, in place: half of bfloat16's bytes, so decoding reads half.

    Every row of a matrix is scaled so that its largest weight is 127, and rounded: a weight moves by at most 1/254 of
    its row's largest. Activations, norms, convolutions and the SSM's own parameters stay as they are, and sums are
    float32. Nothing is calibrated on data. What this does to a model's text is for its evaluation to say: on
    zamba2-nano the tests hold the change of the logits. The gain is in decoding; with more than 8 rows at a time
    (prefill, training) each matrix is written out in full before its product.

    Args:
        model: changed and returned; it can run and generate, but neither be saved nor train its matrices.
        kind: "int8", the only one there is.
        embeddings: the embedding, and with it a tied head, too. An untied head is a matrix as any other.

    Raises ValueError if kind is another.
    """
    if kind != "int8":
        raise ValueError(f"kind must be 'int8': got {kind!r}")
    kinds = (Linear, Embedding) if embeddings else (Linear,)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) in kinds:
                setattr(module, name, child.int8())
    return model
