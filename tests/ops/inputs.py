"""Random inputs of the scans, float64, awkward sizes."""

import torch


def ssd_inputs(seed: int = 0, b: int = 2, l: int = 37, h: int = 8, p: int = 5, g: int = 2, n: int = 3):
    make = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=make, dtype=torch.float64)
    return draw(b, l, h, p), draw(b, l, h).exp(), -draw(h).exp(), draw(b, l, g, n), draw(b, l, g, n), draw(b, h, p, n)


def scan_inputs(seed: int = 0, b: int = 2, l: int = 37, h: int = 3, p: int = 5, n: int = 4):
    make = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=make, dtype=torch.float64)
    return (draw(b, l, h, p), draw(b, l, h, p).exp(), -draw(h, p, n).exp(), draw(b, l, h, n), draw(b, l, h, n), draw(b, h, p, n))
