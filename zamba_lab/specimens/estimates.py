"""A mean with its 95 % interval, as plain data: {"mean", "low", "high", "n"}. Units are documents or prompts."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from zamba_lab.lens import bootstrap

Estimate = dict[str, float | int | None]


def estimates(columns: Sequence[Tensor]) -> list[Estimate]:
    """The mean of each column and its bootstrap interval (BCa). A column leaves out the units for which it is NaN.

    columns: (n,) each, the same units. Columns that leave out the same units are resampled together.
    """
    found: list[Estimate] = [{} for _ in columns]
    table = torch.stack([column.double().cpu() for column in columns], 1) if columns else torch.zeros(0, 0)
    there = table.isfinite()
    patterns: dict[bytes, list[int]] = {}
    for j in range(table.shape[1]):
        patterns.setdefault(there[:, j].numpy().tobytes(), []).append(j)
    for which in patterns.values():
        values = table[there[:, which[0]]][:, which]
        low, high = bootstrap(values) if len(values) else (torch.full((len(which),), torch.nan),) * 2
        for k, j in enumerate(which):
            mean = values[:, k].mean() if len(values) else torch.tensor(torch.nan)
            found[j] = {"mean": _plain(mean), "low": _plain(low[k]), "high": _plain(high[k]), "n": len(values)}
    return found


def estimate(values: Tensor) -> Estimate:
    """`estimates` of one column."""
    return estimates([values])[0]


def ratio(above: Sequence[float] | Tensor, below: Sequence[float] | Tensor, resamples: int = 2000, seed: int = 0) -> Estimate:
    """sum(above) / sum(below) and the percentile interval of its bootstrap over units; None where the sum below is 0."""
    above, below = (np.asarray(part, dtype=float) for part in (above, below))
    if not below.sum():
        return {"mean": None, "low": None, "high": None, "n": len(below)}
    drawn = np.random.default_rng(seed).integers(len(below), size=(resamples, len(below)))
    sums = below[drawn].sum(1)
    ratios = above[drawn].sum(1)[sums != 0] / sums[sums != 0]
    low, high = np.percentile(ratios, (2.5, 97.5)) if len(below) > 1 else (np.nan, np.nan)
    return {"mean": _plain(above.sum() / below.sum()), "low": _plain(low), "high": _plain(high), "n": len(below)}


def _plain(value) -> float | None:
    """A float of six digits; None for what is not a number, which JSON has no word for."""
    value = float(value)
    return float(f"{value:.6g}") if np.isfinite(value) else None
