"""Training: a plain loop that can be stopped and continued, and the recipe of the model in `data/`.

Read `loop.py` first; then `config.py` (arguments, learning rate), `batches.py` (which windows a step sees), `optimiser.py`
(what is decayed), `state.py` (checkpoints), `heldout.py` (bits per byte) and `nano.py` (the recipe).
"""
from zamba_lab.train.config import TrainConfig
from zamba_lab.train.heldout import document_bits, packed_bits_per_byte, xz_bits, xz_bits_per_document
from zamba_lab.train.loop import train

__all__ = ["TrainConfig", "document_bits", "packed_bits_per_byte", "train", "xz_bits", "xz_bits_per_document"]
