"""The gated MLP of shared blocks and of the transformer arm."""

from torch import Tensor, nn

from zamba_lab.blocks.linear import Linear
from zamba_lab.blocks.lora import Adapters, adapted
from zamba_lab.config import ZambaConfig
from zamba_lab.ops.gate import gated
from zamba_lab.trace import OFF


class GatedMLP(nn.Module):
    """down( act(gate) * up ) with [gate, up] = gate_up x + adapter x."""

    def __init__(self, config: ZambaConfig):
        super().__init__()
        self.gate_up = Linear(config.d_model, 2 * config.d_mlp, bias=config.mlp_bias)
        self.down = Linear(config.d_mlp, config.d_model, bias=config.mlp_bias)
        self.activation = config.activation

    def forward(self, x: Tensor, adapters: Adapters, trace=OFF) -> Tensor:
        """x: (b, l, d). adapters: may hold "mlp". Returns (b, l, d)."""
        return self.down(gated(adapted(self.gate_up, adapters, "mlp", x, trace), self.activation))
