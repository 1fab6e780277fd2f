"""Bits a byte of each kind of text, beside `xz -9`: file by file, and in the same windows as the model."""

from collections.abc import Sequence
from typing import Any

from zamba_lab.evaluate import document_bits, xz_bits_in_windows, xz_bits_per_document
from zamba_lab.model import Zamba
from zamba_lab.specimens.estimates import ratio


def coding(model: Zamba, texts: Sequence[str], window: int) -> dict[str, Any]:
    """Bits a byte by the model and by `xz -9`, each text alone from its start; window: in tokens, moved by half. Intervals over texts."""
    sizes, stride = [len(text.encode()) for text in texts], max(1, window // 2)
    return {
        "documents": len(texts),
        "bytes": sum(sizes),
        "window": window,
        "model": ratio(document_bits(model, texts, model.tokenizer, window, stride), sizes),
        "xz, same windows": ratio(xz_bits_in_windows(texts, model.tokenizer, window, stride), sizes),
        "xz, file by file": ratio(xz_bits_per_document(texts), sizes),
    }
