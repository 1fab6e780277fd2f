"""nn.Modules: parameters, and one readable forward each. `make_layer` chooses a depth's kind, `layers.MIXERS` its mixer."""

from zamba_lab.blocks.context import Context
from zamba_lab.blocks.layers import HYBRIDS, HybridLayer, Layer, MambaLayer, TransformerLayer
from zamba_lab.blocks.shared import SharedBlock
from zamba_lab.config import ZambaConfig

__all__ = ["Context", "HybridLayer", "Layer", "MambaLayer", "SharedBlock", "TransformerLayer", "make_layer"]


def make_layer(config: ZambaConfig, depth: int) -> Layer:
    """The module of one depth: a transformer layer, a Mamba layer, or a Mamba layer with an invocation before it."""
    if config.mixer == "attention":
        return TransformerLayer(config)
    if depth in config.hybrid_layers:
        return HYBRIDS[config.link_into](config, k=config.hybrid_layers.index(depth))
    return MambaLayer(config)
