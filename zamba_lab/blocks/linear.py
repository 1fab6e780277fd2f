"""Linear layers and embeddings: torch's own parameters and names, products by `ops.linear`."""

from torch import Tensor, nn

from zamba_lab.ops.linear import linear


class Linear(nn.Linear):
    """y = x W^T + bias (`ops.linear.linear`)."""

    def forward(self, input: Tensor) -> Tensor:  # torch's name for it
        return linear(input, self.weight, self.bias)


class Embedding(nn.Embedding):
    """Token embeddings, which a tied model also reads the other way, as its head."""

    def logits(self, x: Tensor) -> Tensor:
        """x: (b, l, d) -> (b, l, v)."""
        return linear(x, self.weight)
