"""Tensors, arrays and lists as numpy arrays of the shape a figure needs."""

from __future__ import annotations

import numpy as np


def array(values, name: str, ndim: int) -> np.ndarray:
    """`values` as float64 of `ndim` axes: torch tensors of any dtype and device, arrays, nested lists.

    Raises ValueError with the name and shape if the number of axes is another.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} axes: got shape {found.shape}")
    return found


def must_match(name: str, labels, length: int) -> None:
    """Raise ValueError unless there is one label for each of `length` entries."""
    if len(labels) != length:
        raise ValueError(f"{name} needs one label for each entry: got {len(labels)} labels, {length} entries")
